"""What all tests share: one thread, random numbers that any run repeats, a quiet Luigi, results in temporary places."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter

import hypothesis
import pytest

# A busy machine draws slowly, which is no fault of a test.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# A shell starts background commands with Ctrl-C ignored, and children inherit that; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


CLUSTERS = 2  # at once; each has ten daemons, and takes ten seconds to start


def pytest_configure(config: pytest.Config) -> None:
    """Keep pytest-xdist from handing out the files of most tests first; ours is the order below."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    config.pluginmanager.register(EndAtBrokenFile(config))


class EndAtBrokenFile:
    """Ends a run of several processes at a file that cannot be imported, as pytest does in one process."""

    def __init__(self, config: pytest.Config):
        self.config = config

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        controller = self.config.pluginmanager.get_plugin("dsession")  # None in the processes that run tests
        if report.failed and controller is not None:
            controller.shouldstop = f"{report.nodeid} cannot be collected"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that need a cluster as slow; under `--dist loadgroup`, share out all tests among the processes.

    One process per file, but `CLUSTERS` for all tests that need a cluster. They start first, because they mostly wait,
    while others compute; then files with slow tests, by their number, those marked as long, and the others by their
    number of tests, so that no long file is left for the end.
    """
    clustered = [item for item in items if "start_cluster" in getattr(item, "fixturenames", ())]
    for item in clustered:
        item.add_marker("slow")
    if not getattr(config.option, "loadgroup", False):
        return
    slow, long = (Counter(item.path for item in items if item.get_closest_marker(name)) for name in ("slow", "long"))
    size = Counter(item.path for item in items)
    group = {item: f"cluster{number % CLUSTERS}" for number, item in enumerate(clustered)}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group.get(item, item.nodeid.partition("::")[0])))
    items.sort(key=lambda item: (item not in group, -slow[item.path], -long[item.path], -size[item.path]))


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Give the networks that a file makes when it is imported the same weights in every run."""
    if isinstance(collector, pytest.Module):
        _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Give the networks that a test makes the same weights in every run, whatever ran before it."""
    _seed()


def _seed() -> None:
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture
def backend(monkeypatch):
    """Put a pretended backend where runs in this process take theirs from."""
    from luigi_prune.workflow import luigi_integration
    from tests.pretend import PretendBackend

    pretend = PretendBackend()
    monkeypatch.setattr(luigi_integration, "choose", lambda settings: pretend)
    return pretend
