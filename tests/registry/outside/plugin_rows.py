"""Rows as a package would have them, right and wrong; in a folder of their own, because all of it is hashed."""

from __future__ import annotations

import dataclasses

from luigi_prune.registry.method_rows import BUILTIN_METHODS

ROW = dataclasses.replace(BUILTIN_METHODS["ThresNet"], name="MyNet", short="My")
TWIN = dataclasses.replace(ROW, name="TwinNet")
SHORT_OF_OURS = dataclasses.replace(ROW, short="WT")
NAME_AS_SHORT = dataclasses.replace(ROW, short="UniNet")
OTHER_NAME = dataclasses.replace(ROW, name="OtherNet")
ODD = dataclasses.replace(ROW, granularity="neuron")  # type: ignore[arg-type]
TEXT = "MyNet"
