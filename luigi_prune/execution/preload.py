"""Modules that the fork server imports in advance, so that jobs start without importing torch."""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import signal
import sys
import warnings

HEAVY = (
    "numpy",
    "h5py",
    "torch",
    "torch.utils.data",
    "torch.utils.tensorboard",
    "torch.distributed",
    "torchvision",
    "torchvision.transforms",
    "sklearn.datasets",  # the embedded digits; importing it takes most of a second
)
JOBS = tuple(f"luigi_prune.jobs.{stage}_job" for stage in ("train_base", "prune", "retrain", "evaluate"))
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def import_all() -> list[str]:
    """Import what jobs need; return the names of the modules that could not be imported.

    Nothing else: a process that forks must have neither a CUDA context nor threads. Exceptions are ignored, as the job
    that needs the module reports them.
    """
    # OpenBLAS starts its threads when numpy is imported; each job sets their number later.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # keeps `torch.cuda.is_available` from initialising CUDA
    missing = []
    for name in (*HEAVY, "luigi_prune.compute", *JOBS):
        missing += _import(name)
    compute = sys.modules.get("luigi_prune.compute")
    if compute is not None:
        for module in pkgutil.walk_packages(compute.__path__, "luigi_prune.compute.", onerror=lambda name: None):
            missing += _import(module.name)
    del os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]
    gc.freeze()  # jobs share these pages; a garbage collection would copy them all
    return missing


def _import(name: str) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # would be printed on the terminal
            importlib.import_module(name)
    except Exception:
        return [name]
    return []


# The standard library's fork server only takes the names of modules to import, so importing this module starts the
# imports; in any other process, and in fork servers with other modules to preload, it does nothing.
if any("multiprocessing.forkserver" in argument and __name__ in argument for argument in sys.orig_argv):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import_all()
