"""Two gloo processes against one: they do all their work once, the tests look at what came out."""

import multiprocessing
import traceback
from dataclasses import asdict

import pytest
import torch
from digits_training import CPU, dropout_net, run, settings, splits_of

from luigi_prune.compute.data import RawData, Samples, Splits
from luigi_prune.compute.distributed import Ranks, close_group, open_group
from luigi_prune.compute.networks import build
from luigi_prune.compute.training import Interrupted
from luigi_prune.config.schema import Component
from luigi_prune.errors import ConfigError
from tests.api.several_inputs import pair, tokens

pytestmark = pytest.mark.slow

SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
METRICS = tuple(Component(type=name) for name in ("TopK", "IoU", "F1", "MCorr", "Pearson", "SpearmanRank"))


def lenet():
    return build("lenet300_100", (1, 8, 8), 10, seed=1)


def encoder():
    return pair("dict")[0]


def sentences():
    """Return 130 sentences and 20 held out, inputs by name; the class is the first word's."""
    ids, mask = (part.numpy() for part in tokens(150))
    raw = RawData({"input_ids": ids, "attention_mask": mask}, ids[:, 0] % 10)
    train, validation = Samples(raw, [], range(130)), Samples(raw, [], range(130, 150))
    return Splits(train, validation, train.input_shape, validation)


def _train(rank, group, folder, training, network, splits=None):
    return asdict(run(training, network(), splits() if splits else None, process_group=group))


def _train_stopped_by_rank_1(rank, group, folder, training):
    count = iter(range(10**6))
    path = folder / "checkpoint"
    with pytest.raises(Interrupted):
        run(
            training,
            lenet(),
            process_group=group,
            checkpoint=path,
            should_stop=lambda: rank == 1 and next(count) >= 4,
        )
    assert path.exists()
    return asdict(run(training, lenet(), process_group=group, checkpoint=path))


def _exchange(rank, group, folder):
    ranks = Ranks.of(group)
    tensors = [torch.full((2,), float(rank + 1)), torch.tensor(rank), torch.full((1, 2), 2.0)]
    ranks.sum_(tensors)
    return {
        "sums": [tensor.tolist() for tensor in tensors],
        "rows": ranks.concatenate(torch.full((rank + 1, 2), float(rank))).tolist(),
        "any": [ranks.any(rank == 1, CPU), ranks.any(False, CPU)],
        "bytes": [ranks.spread_bytes(b"x" if rank == 0 else None), ranks.spread_bytes(None)],
        "rank zero": ranks.is_rank_zero,
    }


def _refused(rank, group, folder):
    with pytest.raises(ConfigError, match="2 processes cannot train a network with BatchNorm on CPUs"):
        run(settings(), dropout_net(), splits_of(settings()), process_group=group)
    with pytest.raises(ConfigError, match="2 processes cannot share batches of 1"):
        run(settings(batch_size=1), lenet(), splits_of(settings()), process_group=group)
    return True


# 1294 = 20 * 63 + 34: odd batches are shared unequally, and so is the validation's last batch.
UNEQUAL = settings(optimizer_kwargs=SGD, batch_size=63, test_batch_size=25, metrics_test=METRICS)
# 1294 = 3 * 431 + 1: the last batch has a sample for rank 0 only; and the loss divides by class weights.
EMPTY = settings(
    optimizer_kwargs=SGD, batch_size=431, loss_kwargs={"weight": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}, num_epochs=4
)
# 130 = 3 * 43 + 1: uneven shares, and none for rank 1 in the last batch.
SENTENCES = settings(optimizer_kwargs=SGD, batch_size=43, test_batch_size=11, transforms_final=())
LINE_SEARCH = settings(
    optimizer="LBFGS",
    optimizer_kwargs={"lr": 1.0, "line_search_fn": "strong_wolfe", "max_iter": 3},
    batch_size=700,
    num_epochs=1,
)
RESUMED = settings(optimizer_kwargs=SGD, metrics_test=METRICS)
# In passes of at most 100 samples: 87, 86, 86, 86, 86 over both processes, and one in the last batch.
IN_PASSES = EMPTY.model_copy(update={"micro_batch_size": 100})

WORK = {
    "unequal": (_train, UNEQUAL, lenet),
    "empty": (_train, EMPTY, lenet),
    "in passes": (_train, IN_PASSES, lenet),
    "several inputs": (_train, SENTENCES, encoder, sentences),
    "line search": (_train, LINE_SEARCH, lenet),
    "undisturbed": (_train, RESUMED, lenet),
    "resumed": (_train_stopped_by_rank_1, RESUMED),
    "exchange": (_exchange,),
    "refused": (_refused,),
}


def _process(rank, folder):
    torch.set_num_threads(1)
    group = open_group(rank, 2, f"file://{folder}/meet", CPU)
    try:
        results = {name: work(rank, group, folder, *arguments) for name, (work, *arguments) in WORK.items()}
        torch.save(results, folder / f"results{rank}")
    except BaseException:
        (folder / f"failed{rank}").write_text(traceback.format_exc())
        raise
    finally:
        close_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What two processes return for all of `WORK`: {name: [of rank 0, of rank 1]}."""
    folder = tmp_path_factory.mktemp("group")
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_process, args=(rank, folder), daemon=True) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(240)
        if child.is_alive():
            child.kill()
    failures = [path.read_text() for path in sorted(folder.glob("failed*"))]
    assert not failures, failures[0]
    ranks = [torch.load(folder / f"results{rank}", weights_only=False) for rank in range(2)]
    return {name: [rank[name] for rank in ranks] for name in WORK}


def same_weights(states, tolerance=0.0):
    first, *others = states
    return all(torch.allclose(first[name], other[name], atol=tolerance, rtol=0) for other in others for name in first)


@pytest.mark.parametrize("name", ["unequal", "empty", "in passes", "several inputs"])
def test_two_processes_train_the_weights_that_one_trains(results, name):
    _, training, network, *splits = WORK[name]
    alone = run(training, network(), *(build_splits() for build_splits in splits))
    assert same_weights([alone.state, *(result["state"] for result in results[name])], tolerance=1e-5)
    assert not same_weights([alone.state, network().state_dict()], tolerance=1e-2)
    for result in results[name]:
        for series, values in alone.history.items():
            assert result["history"][series] == pytest.approx(values, abs=1e-4), series


def test_line_searches_agree(results):
    first, second = results["line search"]
    assert same_weights([first["state"], second["state"]])
    alone = run(LINE_SEARCH, lenet())
    assert first["history"]["train_loss"] == pytest.approx(alone.history["train_loss"], rel=1e-3)


def test_rank_0s_checkpoint_suffices_and_any_rank_may_ask_to_stop(results):
    for undisturbed, resumed in zip(results["undisturbed"], results["resumed"], strict=True):
        assert same_weights([undisturbed["state"], resumed["state"]])
        for series, values in undisturbed["history"].items():
            assert resumed["history"][series] == pytest.approx(values, abs=1e-6), series


def test_what_processes_send_each_other(results):
    for rank, result in enumerate(results["exchange"]):
        assert result == {
            "sums": [[3.0, 3.0], 1, [[4.0, 4.0]]],
            "rows": [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]],
            "any": [True, False],
            "bytes": [b"x", None],
            "rank zero": rank == 0,
        }


def test_more_processes_than_samples_in_a_batch_and_batchnorm_on_cpus_are_refused(results):
    assert results["refused"] == [True, True]
