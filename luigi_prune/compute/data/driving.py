"""Camera images of drives with the inverse radius of the road's curve (private data; the reader of their format)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from luigi_prune.compute.data.data_files import DataFolder, folder_root
from luigi_prune.compute.data.data_sources import RawData, damaged

_FOLDER = Path("deepknight/devens_large")
_ROWS, _COLUMNS = slice(130, 190), slice(80, 320)
_TRAIN_PERCENT = 90  # of each drive, its beginning


def read_driving(name: str, split: str, training_data: str, local_data: str) -> RawData:
    """Return images (samples, 60, 240, 3) of uint8 and float32 targets (samples, 1), of all drives in order."""
    source = "nowhere: it is private; only your own drives in its format, *.h5 with camera_front and inverse_r"
    root = folder_root(DataFolder(name, _FOLDER, (), source), training_data, local_data) / _FOLDER
    drives = sorted(root.glob("*.h5"))
    if not drives:
        raise damaged(root, "expected drives, *.h5, found none")
    parts = [_read(path, split) for path in drives]
    return RawData(np.concatenate([images for images, _ in parts]), np.concatenate([values for _, values in parts]))


def _read(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and targets of one drive's part."""
    import h5py  # compute needs it for this format only

    try:
        with h5py.File(path, "r") as file:
            camera, inverse = file["camera_front"], file["inverse_r"]
            if camera.ndim != 4 or camera.shape[3] != 3 or camera.dtype != np.uint8:
                raise ValueError(f"camera_front: expected images of bytes, got {camera.dtype} of shape {camera.shape}")
            if camera.shape[1] < _ROWS.stop or camera.shape[2] < _COLUMNS.stop:
                raise ValueError(f"camera_front: expected at least 190x320 pixels, got {camera.shape[1:3]}")
            if len(inverse) != len(camera):
                raise ValueError(f"{len(camera)} images and {len(inverse)} values of inverse_r")
            first = len(camera) * _TRAIN_PERCENT // 100
            part = slice(0, first) if split == "train" else slice(first, len(camera))
            values = np.asarray(inverse[part], dtype=np.float32).reshape(-1, 1)
            images = np.ascontiguousarray(camera[part, _ROWS, _COLUMNS])
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise damaged(path, error) from error
    if not np.isfinite(values).all():
        raise damaged(path, "inverse_r is NaN or infinite")
    return images, values
