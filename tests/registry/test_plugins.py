"""Methods from outside the package: a small one is installed into a folder and used in processes of their own."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from luigi_prune.errors import ConfigError
from luigi_prune.registry.method_rows import BUILTIN_METHODS
from luigi_prune.registry.plugins import PartTable
from luigi_prune.registry.short_names import ShortNames
from luigi_prune.results.hdf5_file import read_result
from tests.experiments import command, write_experiment

PACKAGE = '''
"""Two methods: rows of the catalogue, a score and an allocation."""
from luigi_prune.registry import MethodRow

FIRST_TAP = MethodRow(
    name="FirstTapNet", short="Tap", label="First tap", color="teal", granularity="filter",
    score="tap_pruning.scores:first_tap", allocation="tap_pruning.scores:allocate", selection="top",
    needs_data=False, randomised=False, retrained=True, paper="", summary="Filters of smallest first weight go",
)
'''
SCORES = """
from luigi_prune.compute.pruning.allocations.by_score import ALLOCATIONS


def first_tap(problem):
    return [layer.weight.detach().flatten(1)[:, 0].abs() for layer in problem.layers]


def allocate(problem, scores, granularity):
    return ALLOCATIONS["uniform"](problem, scores, granularity)
"""


def install(folder: Path, entries: dict[str, str], version: str = "1.0") -> Path:
    """Lay down what pip would for the package, and return the folder to put on the path."""
    site = folder / "site"
    package, about = site / "tap_pruning", site / "tap_pruning.dist-info"
    package.mkdir(parents=True, exist_ok=True)
    about.mkdir(exist_ok=True)
    (package / "__init__.py").write_text(PACKAGE)
    (package / "scores.py").write_text(SCORES)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tap-pruning\nVersion: {version}\n")
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (about / "entry_points.txt").write_text("[luigi_prune.methods]\n" + "\n".join(lines) + "\n")
    return site


def run(site: Path, code: str, *command_line: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the package installed."""
    path = os.pathsep.join([str(site), str(Path(__file__).parents[2])])
    arguments = command_line or ("-c", code)
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


def test_a_package_adds_a_method_to_the_api(tmp_path: Path) -> None:
    site = install(tmp_path, {"FirstTapNet": "tap_pruning:FIRST_TAP"})
    done = run(
        site,
        "import torch; from torch import nn; from luigi_prune import api\n"
        "torch.manual_seed(0)\n"
        "net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))\n"
        "kept = [api.prune(net, name, 0.6, example_input=torch.randn(2, 6)).layers[0].mask.any(1).tolist()\n"
        "        for name in ('FirstTapNet', 'Tap')]\n"
        "first = net[0].weight[:, 0].abs()\n"
        "best = first >= first.topk(sum(kept[0])).values.min()\n"
        "print(kept[0] == kept[1] == best.tolist(), 0 < sum(kept[0]) < 8)\n"
        "print(api.methods()[-1].name)",
    )
    assert done.stdout.split("\n")[:2] == ["True True", "FirstTapNet"], done.stderr


def test_the_commands_know_it(tmp_path: Path) -> None:
    site = install(tmp_path, {"FirstTapNet": "tap_pruning:FIRST_TAP"})
    assert "Filters of smallest first weight go" in run(site, "", "-m", "luigi_prune", "methods").stdout
    assert '"FirstTapNet"' in run(site, "", "-m", "luigi_prune", "schema").stdout
    wrong = write_experiment(tmp_path, experiments__methods=["FirstTapNett"])
    refused = run(site, "", "-m", "luigi_prune", "plan", str(wrong))
    assert "did you mean 'FirstTapNet'?" in refused.stderr


@pytest.mark.slow
def test_an_experiment_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install(tmp_path, {"FirstTapNet": "tap_pruning:FIRST_TAP"})
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(Path(__file__).parents[2])]))
    file = write_experiment(
        tmp_path,
        experiments__methods=["Tap"],
        experiments__spacing=[{"type": "manual", "values": [0.5]}],
        network_colors={"Tap": "navy"},
    )
    process = command(file)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    results = tmp_path / "results"
    (pruned,) = results.rglob("*FirstTapNet*/*/*-prune-*.h5")
    arrays = read_result(pruned).arrays
    assert int(arrays["size"]) < int(arrays["original_size"])
    (report,) = results.rglob("report.html")
    assert "First tap" in report.read_text()


def test_an_experiments_keys_hold_the_packages_version_and_source(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, experiments__methods=["Tap"])
    code = (
        "import sys\n"
        "from luigi_prune.config.loader.experiment_files import load_experiments\n"
        "from luigi_prune.identity import keys\n"
        f"print(keys.aggregate_key(load_experiments({str(file)!r})[0]))\n"
        "assert 'torch' not in sys.modules"
    )
    found = []
    for version, edit in (("1.0", ""), ("1.0", ""), ("1.1", ""), ("1.0", "# edited")):
        site = install(tmp_path, {"FirstTapNet": "tap_pruning:FIRST_TAP"}, version)
        (site / "tap_pruning" / "scores.py").write_text(SCORES + edit)
        found.append(run(site, code).stdout.strip())
    assert len(found[0]) > 8
    assert found[0] == found[1]
    assert len(set(found)) == 3


OTHERS = {
    "networks": ("narrow", "tap_pruning.others:narrow"),
    "datasets": ("Dots", "tap_pruning.others:DOTS"),
    "metrics": ("Gap", "tap_pruning.others:GAP"),
    "losses": ("gap", "tap_pruning.others:gap"),
    "optimizers": ("Still", "tap_pruning.others:Still"),
    "schedulers": ("Flat", "tap_pruning.others:Flat"),
    "transforms": ("Same", "tap_pruning.others:Same"),
    "scores": ("first_tap", "tap_pruning.scores:first_tap"),
    "allocations": ("like_ours", "tap_pruning.scores:allocate"),
}
OTHER_PARTS = """
from luigi_prune.registry import DatasetRow, MetricRow

def narrow(input_shape, output_size): ...
def load(split, folder): ...
def gap(outputs, targets): ...
class Still:
    def __init__(self, params, lr=0.1, momentum=0.0): ...
class Flat:
    def __init__(self, optimizer): ...
class Same: pass

DOTS = DatasetRow("Dots", load, num_classes=4)
GAP = MetricRow("Gap", gap, higher_is_better=False)
"""


def test_a_package_adds_parts_of_every_kind(tmp_path: Path) -> None:
    site = install(tmp_path, {"FirstTapNet": "tap_pruning:FIRST_TAP"})
    (site / "tap_pruning" / "others.py").write_text(OTHER_PARTS)
    (site / "tap_pruning" / "__init__.py").write_text(
        PACKAGE.replace("tap_pruning.scores:first_tap", "first_tap").replace("tap_pruning.scores:allocate", "like_ours")
    )
    groups = "".join(f"[luigi_prune.{group}]\n{name} = {value}\n" for group, (name, value) in OTHERS.items())
    entry_points = site / "tap_pruning.dist-info" / "entry_points.txt"
    entry_points.write_text(entry_points.read_text() + groups)
    file = write_experiment(
        tmp_path,
        network={"name": "narrow", "dataset": "Dots"},
        training__loss="gap",
        training__metricsTest=[{"type": "Gap"}],
        training__optimizer="Still",
        training__lrSchedulers=[{"type": "Flat"}],
        training__transformsTrain=[{"type": "Same"}],
        experiments__methods=["Tap"],
    )
    code = (
        "import sys\n"
        "from luigi_prune.config.loader.experiment_files import load_experiments\n"
        "from luigi_prune import registry as c\n"
        f"(one,) = load_experiments({str(file)!r})\n"
        "print(one.network.output_size, c.METHODS[one.experiments.methods[1]].score.partition('@')[0])\n"
        "names = [one.network.name, one.network.dataset, one.training.loss, one.training.optimizer]\n"
        "names += [part.type for part in (*one.training.metrics_test, *one.training.lr_schedulers)]\n"
        "print(*(name.partition('@')[0] for name in names if c.is_foreign(name)))\n"
        "print(*{c.sources_of(name).package for name in names}, 'tap_pruning' in sys.modules)"
    )
    done = run(site, code)
    assert done.stdout.splitlines() == [
        "4 tap_pruning.scores:first_tap",
        "narrow Dots gap Still Gap Flat",
        "tap-pruning 1.0 False",
    ], done.stderr


def test_importing_luigi_prune_imports_no_package(tmp_path: Path) -> None:
    site = install(tmp_path, {"FirstTapNet": "tap_pruning:FIRST_TAP"})
    code = (
        "import sys, luigi_prune, luigi_prune.registry as c\n"
        "c.METHODS['ThresNet'], c.SHORT_NAMES['WT'], 'FirstTapNet' in c.METHODS\n"
        "print('tap_pruning' in sys.modules)\n"
        "c.METHODS['FirstTapNet']\n"
        "print('tap_pruning' in sys.modules, 'torch' in sys.modules)"
    )
    assert run(site, code).stdout.split() == ["False", "False", "False"]  # its row is read, not imported


def test_a_broken_package_is_named_and_harms_who_uses_it_only(tmp_path: Path) -> None:
    site = install(tmp_path, {"GoneNet": "tap_pruning.gone:ROW", "FirstTapNet": "tap_pruning:FIRST_TAP"})
    listed = run(site, "", "-m", "luigi_prune", "methods")
    assert listed.returncode == 0
    assert "FirstTapNet" in listed.stdout
    assert "GoneNet" not in listed.stdout
    (warning,) = [line for line in listed.stderr.splitlines() if "GoneNet" in line]
    assert "tap-pruning 1.0" in warning
    assert "there is no module 'tap_pruning.gone'" in warning
    used = run(site, "", "-m", "luigi_prune", "plan", str(write_experiment(tmp_path, experiments__methods=["GoneNet"])))
    assert used.returncode != 0
    assert "Traceback" not in used.stderr
    assert "method 'GoneNet' of tap-pruning 1.0 (tap_pruning.gone:ROW) cannot be used" in used.stderr
    fine = write_experiment(tmp_path, experiments__methods=["FirstTapNet"])
    assert run(site, "", "-m", "luigi_prune", "plan", str(fine)).returncode == 0


# ------------------------------------------------------------------------------------------ the table, in this process

OUTSIDE = Path(__file__).parent / "outside"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the module `plugin_rows` importable."""
    monkeypatch.syspath_prepend(str(OUTSIDE))


def entry(name: str, attribute: str) -> metadata.EntryPoint:
    return metadata.EntryPoint(name=name, value=f"plugin_rows:{attribute}", group="luigi_prune.methods")


def table(*entries: metadata.EntryPoint) -> tuple[PartTable, ShortNames]:
    methods = PartTable("method", BUILTIN_METHODS, lambda: entries)
    return methods, ShortNames(methods, BUILTIN_METHODS)


def test_rows_of_packages_stand_behind_ours(rows: None) -> None:
    methods, short = table(entry("MyNet", "ROW"), entry("MyNet", "ROW"))  # found twice on the path is one
    assert list(methods) == [*BUILTIN_METHODS, "MyNet"]
    assert len(methods) == len(BUILTIN_METHODS) + 1
    assert methods["MyNet"].short == "My"
    assert short["My"] == "MyNet"
    assert short.get("MyNet") is None
    assert methods.resolve("ThresNet") == "ThresNet"
    assert re.fullmatch("MyNet@[0-9a-f]{16}", methods.resolve("MyNet"))
    assert methods[methods.resolve("MyNet")] is methods["MyNet"]
    assert "Nothing" not in methods


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            (entry("ThresNet", "ROW"),),
            "'ThresNet' of plugin_rows has the same name as one of luigi_prune",
        ),
        (
            (entry("MyNet", "ROW"), entry("MyNet", "TWIN")),
            "'MyNet' of plugin_rows has the same name as one of plugin_rows",
        ),
    ],
)
def test_a_name_may_be_given_once(rows: None, entries: tuple[metadata.EntryPoint, ...], message: str) -> None:
    methods, _ = table(*entries)
    for _ in range(2):
        with pytest.raises(ConfigError, match=message):
            methods["ThresNet"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ((entry("MyNet", "SHORT_OF_OURS"),), "short name 'WT' is already that of 'ThresNet'"),
        ((entry("MyNet", "NAME_AS_SHORT"),), "short name 'UniNet' is already that of 'UniNet'"),
        (
            (entry("MyNet", "ROW"), entry("TwinNet", "TWIN")),
            "'TwinNet' of .*: its short name 'My' is already that of 'MyNet'",
        ),
    ],
)
def test_a_short_name_may_be_given_once(rows: None, entries: tuple[metadata.EntryPoint, ...], message: str) -> None:
    _, short = table(*entries)
    with pytest.raises(ConfigError, match=message):
        list(short)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("OTHER_NAME", "its row is called 'OtherNet'"),
        ("ODD", "unknown granularity 'neuron'"),
        ("TEXT", "is a str, not a MethodRow"),
        ("ABSENT", "plugin_rows.py defines no 'ABSENT'"),
    ],
)
def test_what_is_no_row_is_left_out_with_one_warning(
    rows: None, attribute: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    methods, _ = table(entry("MyNet", attribute))
    with caplog.at_level(logging.WARNING, logger="luigi_prune"):
        assert list(methods) == list(methods) == list(BUILTIN_METHODS)
    (record,) = caplog.records
    assert message in record.getMessage()
    with pytest.raises(ConfigError, match="cannot be used"):
        methods["MyNet"]
