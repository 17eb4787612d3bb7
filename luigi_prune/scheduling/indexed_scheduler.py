"""Luigi's scheduler with a state file that is replaced as a whole."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import luigi.scheduler

logger = logging.getLogger(__name__)


class IndexedState(luigi.scheduler.SimpleTaskState):
    """The tasks and workers of a scheduler."""

    def dump(self) -> None:
        """Replace the state file; a crash while it is written leaves the previous one."""
        path = Path(self._state_path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(temporary, "wb") as file:
                pickle.dump(self.get_state(), file, protocol=pickle.HIGHEST_PROTOCOL)
            temporary.replace(path)
        except OSError:
            logger.warning("Failed saving scheduler state", exc_info=True)


class IndexedScheduler(luigi.scheduler.Scheduler):
    """Luigi's scheduler."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        collector = self._state._metrics_collector
        self._state = IndexedState(self._config.state_path)
        self._state._metrics_collector = collector
