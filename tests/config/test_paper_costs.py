"""docs/papers.md against the graph: tasks and epochs of packaged files."""

import importlib.util
import re
from pathlib import Path

import pytest

from luigi_prune.config.loader.experiment_files import load_experiments

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(\S+\.yaml)` \| (\d+) \| ([\d,]+) \| ([\d,]+) \|", re.M)
LISTED = {
    file: [int(n.replace(",", "")) for n in row] for file, *row in ROW.findall((ROOT / "docs/papers.md").read_text())
}
# Of every kind, those that are counted fast.
COUNTED = (
    "alds/imagenet/retrain/mobilenet_v2.yaml",
    "alds/imagenet/retraincascade/alexnet.yaml",
    "alds/voc/cascade/deeplabv3_resnet50.yaml",
    "lth/mnist.yaml",
    "node/image/cifar.yaml",
)


def test_every_packaged_paper_is_listed_with_its_cost():
    files = {
        str(path.relative_to(ROOT / "luigi_prune/configs/paper"))
        for path in (ROOT / "luigi_prune/configs/paper").rglob("*.yaml")
    }
    experiments = {file for file in files if not file.endswith("common.yaml")}
    assert set(LISTED) == experiments


@pytest.mark.parametrize("file", COUNTED)
def test_the_listed_cost_is_the_graphs(file, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("planned", ROOT / "benchmarks/planned.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    row = module.planned(load_experiments(f"paper/{file}"))
    assert [row["experiments"], row["tasks"], row["epochs"]] == LISTED[file]
