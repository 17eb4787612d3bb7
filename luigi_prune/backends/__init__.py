"""Where jobs run: in this process, in processes of this machine, or as SLURM jobs."""

from __future__ import annotations

from luigi_prune.backends.job import Backend, ComputeSettings
from luigi_prune.backends.slots import Slots
from luigi_prune.errors import ConfigError


def choose(settings: ComputeSettings) -> Backend:
    """Return the backend that the settings ask for; `auto` is local where more than one job can run at once."""
    kind = settings.backend
    if kind == "slurm":
        from luigi_prune.backends.slurm.backend import SlurmBackend

        return SlurmBackend(settings)
    if kind == "auto":
        several = Slots(settings).total > 1 or max(settings.processes.values(), default=1) > 1
        kind = "local" if several else "inline"
    if kind == "inline":
        if max(settings.processes.values(), default=1) > 1:
            raise ConfigError("luigi.cfg: [compute] backend: 'inline' has one process; processes need 'local'")
        from luigi_prune.backends.inline import InlineBackend

        return InlineBackend(settings)
    from luigi_prune.backends.local import LocalBackend

    return LocalBackend(settings)
