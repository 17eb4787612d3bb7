"""Networks out of finished experiments: loaded, exported, and used in a process that has nothing but the file."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from luigi_prune import api
from luigi_prune.__main__ import main
from luigi_prune.api.exporting import ENDINGS
from luigi_prune.api.taking_home import take_home
from luigi_prune.errors import ConfigError
from luigi_prune.report.latency_table import latency_table
from luigi_prune.report.style import method_styles
from luigi_prune.results.hdf5_file import read_result
from tests.compute.pruning.zoo import trained_like
from tests.experiments import reports, run_to_tables, write_experiment

METHODS = {"WT": "ThresNet", "FT": "FilterThresNet", "ALDS": "ALDSNet", "Messi": "MessiNet"}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run an experiment up to its tables; return its file."""
    folder = tmp_path_factory.mktemp("experiment")
    spacing = [{"type": "manual", "values": [0.6, 0.3]}]
    file = write_experiment(
        folder,
        training__numEpochs=5,
        retraining__startEpoch=3,
        experiments__methods=list(METHODS.values()),
        experiments__mode="retrain",
        experiments__spacing=spacing,
    )
    run_to_tables(file)
    return file


def test_latency_is_measured_on_request_and_shown_beside_multiply_adds(tmp_path: Path) -> None:
    file = write_experiment(
        tmp_path,
        training__numEpochs=1,
        retraining__startEpoch=0,
        experiments__methods=["FilterThresNet"],
        experiments__mode="retrain",
        experiments__spacing=[{"type": "manual", "values": [0.3]}],
        experiments__measureLatency=True,
    )
    run_to_tables(file)
    tables = read_result(reports(file)[0].tables.path)
    assert tables.measured["latency_batch"].ravel().tolist() == [8, 8]
    styles = method_styles(["ReferenceNet", "FilterThresNet"], [False, False], {}, {})
    table = latency_table(tables.arrays, tables.measured, styles)
    assert table is not None
    row = dict(zip(table.columns, table.rows[-1], strict=True))
    assert row["multiply-adds, masked"] == row["multiply-adds, compact"]
    assert float(row["latency, compact"]) > 0
    assert "8 samples with 1 thread" in table.caption
    assert latency_table(tables.arrays, {}, styles) is None


@pytest.mark.parametrize("method", METHODS)
def test_an_experiment_gives_the_closest_ratio(experiment: Path, method: str) -> None:
    with pytest.warns(UserWarning, match=r"keep ratio 0\.25 is not in the experiment; the closest is 0\.3"):
        network = api.load(experiment, method=METHODS[method], keep_ratio=0.25)
    assert isinstance(network, api.FinishedNetwork)
    assert (network.method, network.target_keep_ratio, network.family) == (METHODS[method], 0.3, "Retrain")
    assert network.classes == 10
    assert network.example_input.shape[1:] == (1, 8, 8)
    assert [type(each).__name__ for each in network.transforms] == ["ToTensor"]
    stored = network.quality["Digits"]
    assert stored["TopK1"] > 0.15  # chance: 0.1
    assert network.evaluate() == pytest.approx(stored, rel=1e-5)
    assert network.evaluate(network=network.compact().network) == pytest.approx(stored, rel=1e-4)
    assert network.size == sum(p.numel() for p in network.network.parameters()) - removed(network)
    network.network.train()(network.example_input).sum().backward()
    torch.optim.SGD(network.network.parameters(), lr=1.0).step()
    assert all(not network.network.get_parameter(name)[~mask].any() for name, mask in network.masks.items())


def removed(network: api.Pruned) -> int:
    return sum(int((~mask).sum()) for mask in network.masks.values())


def test_every_result_is_loaded_or_refused_by_what_it_is(experiment: Path) -> None:
    families = []
    for file in sorted((experiment.parent / "results").rglob("*.h5")):
        if "experiments" in file.parts:
            with pytest.raises(ConfigError, match="the tables of an experiment"):
                api.load(file)
            continue
        families.append(api.load(file).family)  # type: ignore[union-attr]
    counts = {family: families.count(family) for family in set(families)}
    assert counts == {"TrainBase": 2, "Prune": 8, "Retrain": 16}  # half of the last, and one of the first: Evaluate
    trained = api.load(experiment)
    assert trained.method == "ReferenceNet"
    assert trained.keep_ratio == 1
    before = api.load(experiment, method="WT", keep_ratio=0.3, retrained=False)
    assert (before.family, before.quality) == ("Prune", {})  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "FilterThresNett", "keep_ratio": 0.3}, "did you mean 'FilterThresNet'"),
        ({"method": "SVDNet", "keep_ratio": 0.3}, "the experiment has no 'SVDNet'"),
        ({"method": "WT"}, "give a keep_ratio; the experiment has 0.6, 0.3"),
        ({"method": "WT", "keep_ratio": 0.3, "net": 1}, "net: the experiment has nets 0 to 0, got 1"),
        ({"method": "WT", "keep_ratio": 0.3, "repetition": -1}, "repetitions 0 to 0, got -1"),
        ({"keep_ratio": 0.3}, "give a method"),
        ({"member": "other"}, "choose one by `member`"),
    ],
)
def test_a_wrong_choice_is_one_line(experiment: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        api.load(experiment, **arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_that_is_not_computed_yet_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not computed yet .*TrainBase"):
        api.load(write_experiment(tmp_path))


USE = """
import json, sys, torch
expected, file, inputs = json.loads(sys.argv[1]), sys.argv[2], torch.load(sys.argv[3])
x, y = inputs["x"], inputs["y"]
def accuracy(scores): return (scores.argmax(1) == y).double().mean().item()
for name, accuracy_of_source in expected.items():
    if name.endswith(".onnx"):
        import onnxruntime
        session = onnxruntime.InferenceSession(f"{file}/{name}")
        scores = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    elif name.endswith(".pt2"):
        scores = torch.export.load(f"{file}/{name}").module()(x)
        assert not any(module.startswith("luigi_prune") for module in sys.modules)
    else:
        from luigi_prune import api
        scores = api.load(f"{file}/{name}").network(x)
    assert abs(accuracy(scores) - accuracy_of_source) < 1e-6, (name, accuracy(scores), accuracy_of_source)
print(len(expected), "files")
"""


def test_every_format_in_a_fresh_process(experiment: Path, tmp_path: Path) -> None:
    expected, home = {}, tmp_path / "home"
    for method, name in METHODS.items():
        network = api.load(experiment, method=name, keep_ratio=0.3)
        assert isinstance(network, api.FinishedNetwork)
        compact = method in ("FT", "Messi")
        for to, ending in ENDINGS.items():
            if to == "onnx" and method in ("WT", "ALDS"):
                continue  # as the others; the exporter takes seconds
            path, card, difference = take_home(
                network, to, output=home / f"{method}{ending}", compact=compact, latency_seconds=0
            )
            assert difference <= 1e-5
            assert network.path.name in card.read_text()
            expected[path.name] = network.quality["Digits"]["TopK1"]
    samples = network.test_samples()
    x, y = samples.get(range(len(samples)))
    torch.save({"x": x, "y": y}, tmp_path / "samples.pt")
    # order matters: those that need no luigi_prune come first
    ordered = dict(sorted(expected.items(), key=lambda item: item[0].endswith((".pt", ".safetensors"))))
    arguments = [json.dumps(ordered), str(home), str(tmp_path / "samples.pt")]
    done = subprocess.run([sys.executable, "-c", USE, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{len(expected)} files" in done.stdout


def test_the_command_writes_a_card_with_what_there_is_to_know(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.safetensors"
    chosen = ["--method", "FT", "--keep-ratio", "0.3", "--to", "safetensors", "--compact", "--align", "4"]
    assert main(["export", str(experiment), *chosen, "--output", str(file)]) == 0
    line = capsys.readouterr().out
    assert "FilterThresNet at keep ratio 0.3" in line
    assert str(file) in line
    card = (tmp_path / "mine.safetensors.md").read_text()
    network = api.load(experiment, method="FT", keep_ratio=0.3)
    quality = network.quality["Digits"]["TopK1"]  # type: ignore[union-attr]
    for expected in ("lenet300_100", "Digits", "arXiv", f"{quality:.4f}", f"{network.size:,}", "| compact int8 |",
                     "latency over dense", "ToTensor()", 'api.load("mine.safetensors")', "sha256"):  # fmt: skip
        assert expected in card, expected
    widths = [p.shape[0] for p in api.load(file).network.parameters() if p.dim() == 2]
    assert all(width % 4 == 0 for width in widths[:-1])
    assert main(["export", str(experiment), *chosen, "--output", str(file)]) != 0
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.h5"], "none.h5: no such file"),
        (["a.yaml", "b.yaml", "--output", "x.onnx"], "--output: names one file"),
        (["a.yaml", "--align", "8"], "--align: has no meaning without --compact"),
        (["a.yaml"], "a.yaml"),
    ],
)
def test_a_wrong_command_is_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) != 0
    assert message in (error := capsys.readouterr().err)
    assert error.count("\n") == 1


def test_a_network_of_ones_own_is_exported_too(tmp_path: Path) -> None:
    network, x = trained_like("concat")
    pruned = api.prune(network, "FilterThresNet", 0.5, example_input=x)
    small = pruned.compact()
    api.export(small, tmp_path / "small.safetensors", "safetensors")
    with pytest.raises(ConfigError, match="pass the unpruned architecture"):
        api.load(tmp_path / "small.safetensors")
    loaded = api.load(tmp_path / "small.safetensors", trained_like("concat", seed=5)[0])
    with torch.no_grad():
        assert torch.equal(loaded.network(x), small.network.eval()(x))
    for to, name, message in (
        ("onnxx", "a.onnx", "did you mean 'onnx'"),
        ("onnx", "a.pt", "ends in .onnx"),
        ("safetensors", "small.safetensors", "exists"),
    ):
        with pytest.raises(ConfigError, match=message):
            api.export(small, tmp_path / name, to)


def test_code_that_no_graph_can_follow_is_refused_in_one_line(tmp_path: Path) -> None:
    class Branches(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.head = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.up(x)) if float(x.sum()) > 0 else self.head(-self.up(x))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruned = api.prune(Branches(), "FilterThresNet", 0.7, example_input=torch.ones(2, 4))
    with pytest.raises(ConfigError, match=r"torch\.export cannot follow the network's code") as caught:
        api.export(pruned, tmp_path / "branches.pt2", "torch-export")
    assert "\n" not in str(caught.value)


def test_latency_and_sizes() -> None:
    network, x = trained_like("mlp")
    pruned = api.prune(network, "FilterThresNet", 0.2, example_input=x)
    small = pruned.compact()
    dense, compact = api.measure_latency({"dense": network, "compact": small.network}, x, seconds=0.05)
    assert dense.ratio == 1
    assert (dense.batch, dense.threads, dense.device, dense.dtype) == (4, 1, "cpu", "float32")
    assert compact.ratio_quartiles[0] <= compact.ratio <= compact.ratio_quartiles[1]
    assert compact.samples_per_second == pytest.approx(4 / compact.seconds)
    sizes = api.disk_sizes(pruned.network, small.network)
    assert sizes["compact int8"] < sizes["compact"] < sizes["sparse"] < sizes["dense"]
    assert sizes["int8"] < 0.5 * sizes["dense"]
