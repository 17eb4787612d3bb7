import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from digits_training import AUGMENTED, assert_same, dropout_net, run, settings, splits_of

from luigi_prune.compute.networks import build
from luigi_prune.compute.training import Interrupted, checkpoint, discard
from luigi_prune.config.schema import Component, SchedulerComponent

ALL_METRICS = tuple(Component(type=name) for name in ("TopK", "IoU", "F1", "MCorr", "Pearson", "SpearmanRank"))
ONE_CYCLE = (SchedulerComponent(type="OneCycleLR", step_kwargs={"total_steps": 3}, kwargs={"max_lr": 0.1}),)

TRAININGS = {
    "sgd": settings(transforms_train=AUGMENTED, metrics_test=ALL_METRICS, early_stop_epoch=1),
    "adam": settings(optimizer="Adam", optimizer_kwargs={"lr": 0.003}, transforms_train=AUGMENTED),
    "cycle": settings(lr_schedulers=ONE_CYCLE, loss="CrossEntropyLoss", loss_kwargs={"weight": list(range(1, 11))}),
    "lbfgs": settings(optimizer="LBFGS", optimizer_kwargs={"lr": 0.1, "max_iter": 2}, batch_size=400),
}


def after(calls):
    """Return a `should_stop` that turns true at its `calls`-th call."""
    count = iter(range(1, 10**6))
    return lambda: next(count) >= calls


def interrupted_run(training, path, stops, **given):
    """Return the result of a training that is stopped after each of the numbers of steps in `stops` and taken up
    again.
    """
    for steps in stops:
        with pytest.raises(Interrupted):
            run(training, checkpoint=path, should_stop=after(steps), **given)
        assert path.exists()
    return run(training, checkpoint=path, **given)


@pytest.mark.parametrize("name", sorted(TRAININGS))
def test_a_run_that_was_stopped_anywhere_ends_in_the_same_bits(tmp_path, name):
    training = TRAININGS[name]
    splits = splits_of(training)
    stops = (2, 3, 1) if name == "lbfgs" else (1, 5, 15, 13, 21)  # 15 + 5 + 1: the last step of an epoch
    undisturbed = run(training, splits=splits, rewind_epoch=1)
    assert_same(undisturbed, interrupted_run(training, tmp_path / "c", stops, splits=splits, rewind_epoch=1))


def test_retraining_with_masks_and_residual_blocks_resumes_too(tmp_path):
    training = settings(transforms_train=AUGMENTED)
    masks = {"conv1.weight": torch.arange(16 * 9).reshape(16, 1, 3, 3) % 3 > 0}
    given = {"masks": masks, "start_epoch": 1}

    def network():
        return build("resnet8", (1, 8, 8), 10, seed=2)

    undisturbed = run(training, network(), **given)
    for steps in (4, 20):
        with pytest.raises(Interrupted):
            run(training, network(), checkpoint=tmp_path / "c", should_stop=after(steps), **given)
    assert_same(undisturbed, run(training, network(), checkpoint=tmp_path / "c", **given))
    assert not undisturbed.state["conv1.weight"][~masks["conv1.weight"]].any()


def test_epochs_that_were_recorded_are_not_reported_again(tmp_path):
    reported = []
    with pytest.raises(Interrupted):
        run(settings(), checkpoint=tmp_path / "c", should_stop=after(30), on_epoch=lambda r: reported.append(r.epoch))
    run(settings(), checkpoint=tmp_path / "c", on_epoch=lambda record: reported.append(record.epoch))
    assert reported == [0, 1, 2]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_checkpoint_is_ignored_with_a_warning(tmp_path, caplog, damage):
    path = tmp_path / "c"
    with pytest.raises(Interrupted):
        run(settings(), checkpoint=path, should_stop=after(30))
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    path.write_bytes(
        {"truncated": content[:-9], "flipped": bytes(flipped), "empty": b"", "foreign": b"x" * 999}[damage]
    )
    assert_same(run(settings()), run(settings(), checkpoint=path))
    assert "damaged" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"seed": 6},
        lambda: {"network": dropout_net(seed=1)},
        lambda: {"start_epoch": 1},
        lambda: {"rewind_epoch": 1},
        lambda: {"masks": {"conv.weight": torch.ones(6, 1, 3, 3, dtype=torch.bool)}},
        lambda: {"training": settings(optimizer_kwargs={"lr": 0.04, "momentum": 0.9, "weight_decay": 1e-4})},
    ],
)
def test_the_checkpoint_of_another_training_is_ignored_with_a_warning(tmp_path, caplog, change):
    with pytest.raises(Interrupted):
        run(settings(), checkpoint=tmp_path / "c", should_stop=after(30))
    undisturbed = run(**{"training": settings(), **change()})
    assert_same(undisturbed, run(**{"training": settings(), "checkpoint": tmp_path / "c", **change()}))
    assert "another training" in caplog.text


def test_a_training_goes_on_with_another_test_batch_size(tmp_path, caplog):
    with pytest.raises(Interrupted):
        run(settings(), checkpoint=tmp_path / "c", should_stop=after(30))
    resumed = run(settings(test_batch_size=9), checkpoint=tmp_path / "c")
    assert "another training" not in caplog.text
    undisturbed = run(settings())
    assert all(torch.equal(value, resumed.state[name]) for name, value in undisturbed.state.items())


def test_checkpoints_are_bounded_by_time_and_left_to_the_caller(tmp_path):
    run(settings(), checkpoint=tmp_path / "seldom", checkpoint_seconds=1000)
    assert not (tmp_path / "seldom").exists()
    seen = []
    run(
        settings(),
        checkpoint=tmp_path / "c",
        checkpoint_seconds=0,
        on_epoch=lambda record: seen.append(os.listdir(tmp_path)),
    )
    assert seen == [["c"]] * 3
    # A finished one is taken up again without any training.
    assert_same(run(settings()), run(settings(), checkpoint=tmp_path / "c", should_stop=lambda: True))
    discard(tmp_path / "c")
    discard(tmp_path / "c")
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_that_cannot_be_written_costs_nothing_but_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    result = run(settings(num_epochs=1), checkpoint=tmp_path / "file" / "c", checkpoint_seconds=0)
    assert len(result.history["epoch"]) == 1
    assert "cannot be written" in caplog.text or "cannot be read" in caplog.text


def test_a_checkpoint_holds_no_code(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "executed", "code"))

    checkpoint.write_checkpoint(tmp_path / "c", {"x": Malicious()})
    payload = checkpoint.read_payload(tmp_path / "c")
    with pytest.raises(Exception, match=r"weights_only|Unsupported|WeightsUnpickler"):
        checkpoint.decode(payload)
    assert not (tmp_path / "executed").exists()


KILLED = """
import sys
sys.path.insert(0, {folder!r})
import torch
torch.set_num_threads(1)
from digits_training import run
from test_checkpoint import TRAININGS
from pathlib import Path
def note(record):
    print(record.epoch, flush=True)
run(TRAININGS["sgd"], checkpoint=Path({path!r}), checkpoint_seconds=0, on_epoch=note)
"""


@pytest.mark.slow
def test_a_killed_process_is_taken_up_by_another(tmp_path):
    path = tmp_path / "c"
    script = KILLED.format(folder=str(Path(__file__).parent), path=str(path))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    for epoch in range(2):
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
        assert child.stdout.readline() == b"%d\n" % epoch
        time.sleep(0.02 * epoch)  # into the next epoch
        child.send_signal(signal.SIGKILL)
        child.communicate()
    saved = checkpoint.decode(checkpoint.read_payload(path))
    assert saved["progress"]["epoch"] >= 1
    result = run(TRAININGS["sgd"], checkpoint=path)
    assert_same(run(TRAININGS["sgd"]), result)
    assert np.isfinite(result.history["validation_loss"]).all()
