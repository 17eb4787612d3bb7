"""What the fork server imports before the first job asks for it, so that a job starts without waiting for torch."""

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
    "sklearn.datasets",  # the embedded digits; most of a second that each of their jobs would spend again
)
JOBS = tuple(f"luigi_prune.jobs.{stage}_job" for stage in ("train_base", "prune", "retrain", "evaluate"))
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def import_all() -> list[str]:
    """Import what jobs need and return the names of the modules that could not be imported.

    Only imports: a process that is going to fork may hold no CUDA context and no thread. The job that needs a module
    that is missing or broken says so itself, hence every exception is passed over here.
    """
    # OpenBLAS starts its threads while numpy is imported; a job sets its own number later.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # a library that asks `is_available` must not initialise CUDA
    missing = []
    for name in (*HEAVY, "luigi_prune.compute", *JOBS):
        missing += _import(name)
    compute = sys.modules.get("luigi_prune.compute")
    if compute is not None:
        for module in pkgutil.walk_packages(compute.__path__, "luigi_prune.compute.", onerror=lambda name: None):
            missing += _import(module.name)
    del os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]
    gc.freeze()  # the jobs share these pages; a collection in one of them would copy them all
    return missing


def _import(name: str) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they would reach the terminal, and belong to no job
            importlib.import_module(name)
    except Exception:
        return [name]
    return []


# The standard library's fork server can only be told a module's name, so importing this one is the order to start.
# Anywhere else (a fork server that was told other names, a process that needs the names above) it does nothing.
if any("multiprocessing.forkserver" in argument and __name__ in argument for argument in sys.orig_argv):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import_all()
