"""The reference's files of validation indices, `<training data>/<DataSet>_validation.npz`."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import numpy as np

from luigi_prune.compute.data.data_sources import damaged
from luigi_prune.compute.data.sample_order import Indices
from luigi_prune.registry import plain

log = logging.getLogger(__name__)


def stored_validation(dataset: str, samples: int, fraction: float, folder: str) -> Indices | None:
    """Return the validation indices of the data set's file in `folder`, None if there is no file of that fraction.

    Raises ConfigError for a file that is damaged or of another number of samples.
    """
    path = Path(folder).expanduser() / f"{plain(dataset)}_validation.npz"
    if ":" in dataset or not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            validation, training = (
                np.asarray(stored[name]).astype(np.int64).ravel() for name in ("set1Idx", "set2Idx")
            )
            ratio = float(np.asarray(stored["ratioSet1"]).ravel()[0])
    except (OSError, KeyError, ValueError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise damaged(path, error) from error
    if abs(ratio - fraction) > 1e-6:
        log.warning("%s: not used: its validation set is %g of the samples, ours %g", path, ratio, fraction)
        return None
    if not len(validation) or not np.array_equal(np.sort([*validation, *training]), np.arange(samples)):
        raise damaged(path, f"set1Idx and set2Idx do not divide the {samples} training samples of {dataset}")
    log.warning("%s: the validation samples are those of this file, not drawn by seed", path)
    return validation
