"""A tiny BERT on token dictionaries, from experiment file to tables, with the loss that the network computes."""

from __future__ import annotations

import pytest

from luigi_prune.results.hdf5_file import read_result
from tests.experiments import run_to_tables, write_experiment

DATA = """
import numpy as np
from luigi_prune.registry import DatasetRow

def sentences(split, folder):
    rng = np.random.default_rng(split == "train")
    topics = rng.integers(0, 2, 160)
    own = rng.random((160, 6)) < 0.9
    ids = np.where(own, topics[:, None], 1 - topics[:, None]) * 10 + rng.integers(0, 10, (160, 6))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}, topics

SENTENCES = DatasetRow("sentences", sentences, 2, {"input_ids": (6,), "attention_mask": (6,)})
"""
TINY = {
    **{"vocab_size": 20, "max_position_embeddings": 8, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32},
}


@pytest.mark.slow
def test_a_tiny_bert_learns_and_is_pruned_by_weights_and_by_ranks(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "texts.py").write_text(DATA)
    file = write_experiment(
        tmp_path,
        network={"name": "bert", "dataset": "texts:SENTENCES", "outputSize": 2, "kwargs": TINY},
        training__loss="LossFromInput",
        training__optimizer="AdamW",
        training__optimizerKwargs={"lr": 0.01},
        training__batchSize=16,
        training__numEpochs=4,
        training__transformsFinal=[],
        experiments__methods=["WT", "SVD"],
        experiments__spacing=[{"type": "manual", "values": [0.7]}],
    )
    run_to_tables(file)
    (evaluated,) = (tmp_path / "results").rglob("net0-evaluate-*.h5")
    assert float(read_result(evaluated).arrays["metrics/TopK1"]) > 0.8
    pruned = [read_result(path) for path in (tmp_path / "results").rglob("keep0.7-prune-*.h5")]
    assert len(pruned) == 2
    for result in pruned:
        assert int(result.arrays["size"]) < int(result.arrays["original_size"])
