"""Where jobs run: in this process, in processes of this machine, or (to come) as SLURM jobs."""

from __future__ import annotations

from luigi_prune.backends.job import Backend, ComputeSettings, available_cores, cuda_devices


def choose(settings: ComputeSettings, log_folder: str = "") -> Backend:
    """Return the backend that the settings ask for; `auto` is local where more than one job can run at once."""
    kind = settings.backend
    if kind == "auto":
        at_once = settings.jobs or max(available_cores() // settings.threads, len(cuda_devices()))
        kind = "local" if at_once > 1 or max(settings.processes.values(), default=1) > 1 else "inline"
    if kind == "inline":
        from luigi_prune.backends.inline import InlineBackend

        return InlineBackend(settings)
    from luigi_prune.backends.local import LocalBackend

    return LocalBackend(settings, log_folder)
