"""`network.weights`: the file that it means, with the hash of its content, which is part of keys."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

from luigi_prune import registry
from luigi_prune.config.key_names import SettingError
from luigi_prune.config.schema import Experiment
from luigi_prune.registry.sources import file_digest

SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
_PATH = ("network", "weights")
# Torchvision knows the addresses; a subprocess keeps it out of this process.
_ADDRESS = """
import json, sys
from torchvision import models
architecture, backbone, name = json.loads(sys.argv[1])
known = {}
for each in filter(None, (architecture, backbone)):
    known |= {f"{kind.__name__}.{w.name}": w.url for kind in [models.get_model_weights(each)] for w in kind}
for full in [full for full in known if name in (full, full.partition(".")[2])][:1]:
    print(json.dumps([known[full], []]))
    sys.exit()
print(json.dumps(["", sorted(known)]))
"""


def resolve_weights(experiment: Experiment, folder: Path) -> Experiment:
    """Return the experiment with `network.weights` as "absolute path@digest of the content".

    `folder`: the experiment file's, searched after the working directory. Raises SettingError for a file that does not
    exist; for weights of torchvision it says what to download, and where to put it.
    """
    network = experiment.network
    if not network.weights:
        if network.new_layers:
            raise SettingError(("network", "new_layers"), "has no meaning without network.weights")
        return experiment
    file = _given_file(network.weights, folder) if _is_file_name(network.weights) else _torchvision_file(experiment)
    weights = f"{file}@{_digest(file)}"
    return experiment.model_copy(update={"network": network.model_copy(update={"weights": weights})})


def _is_file_name(weights: str) -> bool:
    return weights.endswith(SUFFIXES) or "/" in weights or os.sep in weights


def _given_file(weights: str, folder: Path) -> Path:
    path = Path(weights).expanduser()
    for place in (path, folder / path):
        if place.is_file():
            return place.resolve()
    if path.is_dir():
        raise SettingError(_PATH, f"{weights} is a folder: expected a file ({', '.join(SUFFIXES)})")
    where = "" if path.is_absolute() else f" in {Path.cwd()} or {folder}"
    raise SettingError(_PATH, f"there is no file {weights}{where}")


def _torchvision_file(experiment: Experiment) -> Path:
    """Return the file of weights that torchvision has a name for."""
    network = experiment.network
    row = registry.find("network", network.name)
    architecture = str(row.settings.get("architecture", ""))
    if "torchvision_networks" not in str(row.path) and "by_image_size" not in str(row.path):
        raise SettingError(
            _PATH, f"{network.weights!r} is not the name of a file ({', '.join(SUFFIXES)}), which {row.name} needs"
        )
    _, _, backbone = architecture.partition("_") if architecture.startswith(("fcn_", "deeplabv3_")) else ("", "", "")
    address, names = _address(json.dumps([architecture, backbone, network.weights]))
    if not address:
        raise SettingError(
            _PATH,
            f"{network.weights!r} is neither a file ({', '.join(SUFFIXES)}) nor weights of torchvision for "
            f"{architecture}; choose from {', '.join(names)}",
        )
    own = Path(experiment.directories.training_data).expanduser() / "weights"
    name = address.rpartition("/")[2]
    for place in (own, _hub_folder()):
        if (place / name).is_file():
            return (place / name).resolve()
    raise SettingError(_PATH, f"{network.weights} is not on this machine: download {address} to {own.resolve() / name}")


def _hub_folder() -> Path:
    """Return the folder of torch's downloads."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


@functools.lru_cache(maxsize=64)
def _address(request: str) -> tuple[str, list[str]]:
    """Return the address of weights; "" and all names for an unknown name."""
    done = subprocess.run([sys.executable, "-c", _ADDRESS, request], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SettingError(_PATH, f"torchvision cannot be asked for the file: {reason}")
    address, names = json.loads(done.stdout.splitlines()[-1])
    return str(address), [str(name) for name in names]


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_of(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)
def _digest_of(path: Path, modified: int, size: int) -> str:
    """Return the digest of a file; members of a sweep share one reading."""
    return file_digest(path)
