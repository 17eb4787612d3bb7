"""What all tests share: one thread, a quiet Luigi, no network, results in a temporary folder."""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
