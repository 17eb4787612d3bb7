"""The control that draws weights anew, as a job: from the network's own initialisation, a seed per repetition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from luigi_prune.results.hdf5_file import read_result
from tests.experiments import build, reports, write_experiment


@pytest.mark.slow
def test_scratch_keeps_what_the_method_keeps_and_starts_anew(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, experiments__methods=["WT", "Scratch"], experiments__numRepetitions=2)
    chains = [task for cell, task in reports(file)[0].tables.evaluations.items() if cell.split("/")[2] == "0"]
    build([task.requires()["network"].requires()["network"] for task in chains if task.content.chain])
    found: dict[str, list] = {"ThresNet": [], "ScratchNet": []}
    for path in sorted((tmp_path / "results").rglob("keep*-prune-*.h5")):
        found[path.parent.parent.name].append(read_result(path))
    (kept, _), (one, two) = found["ThresNet"], found["ScratchNet"]
    assert one.group("masks").keys() == kept.group("masks").keys()
    for name, mask in kept.group("masks").items():
        np.testing.assert_array_equal(one.group("masks")[name], mask)
        assert not one.group("weights")[name][~mask].any()
        for other in (two, kept):
            assert not np.array_equal(one.group("weights")[name], other.group("weights")[name])
