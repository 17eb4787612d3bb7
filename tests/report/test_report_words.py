"""What a report says about results is true: flags, epochs, early stopping, the leader, how to load it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from luigi_prune.analysis.aggregate import Aggregated, aggregate_results
from luigi_prune.analysis.completeness import Evaluated, evaluated
from luigi_prune.analysis.verdict import Verdict, pairwise, verdict
from luigi_prune.report import wording
from luigi_prune.report.cells import Table, limits, number
from luigi_prune.report.curves import measured_metric
from luigi_prune.report.glance import glance_table
from luigi_prune.report.provenance_lines import MOST_LINES, provenance_lines
from luigi_prune.report.result_flags import chance_of, flags
from luigi_prune.report.style import MethodStyle, method_styles
from luigi_prune.report.table_files import latex
from luigi_prune.report.take_home import config_of, take_home
from luigi_prune.report.verdict_card import Card, make_card, readable_reason
from tests.synthetic import make_grid, read

METHODS = ("ReferenceNet", "ThresNet", "FilterThresNet")
RATIOS = (0.8, 0.65, 0.5, 0.25, 0.125)


def tables(nets: int = 5) -> Aggregated:
    return aggregate_results(make_grid(METHODS, RATIOS, nets=nets, repetitions=1), read)


def styles(made: Aggregated) -> list[MethodStyle]:
    return method_styles(
        METHODS, made.arrays["method/nominal"].tolist(), {"ThresNet": "WT", "FilterThresNet": "FT"}, {}
    )


def with_drops(wt: tuple[float, ...], ft: tuple[float, ...], nets: int = 5) -> Aggregated:
    """Return tables in which the methods lose so much at each ratio, on both splits, in every net.

    The first drop is that of the three largest ratios.
    """
    made = tables(nets)
    wt, ft = (wt[0], wt[0], *wt), (ft[0], ft[0], *ft)
    for name in ("test/Digits/TopK1", "validation/TopK1"):
        values = made.arrays[name]
        values[..., 1] = values[..., 0] - np.array(wt)[None, :, None]
        values[..., 2] = values[..., 0] - np.array(ft)[None, :, None]
    shape = made.arrays["cost/size"].shape
    sizes = np.broadcast_to(np.array(RATIOS)[None, :, None], shape[:3])
    made.arrays["cost/size"][..., 1], made.arrays["cost/size"][..., 2] = sizes, sizes
    made.arrays["samples/validation"] = np.full(shape, 1000.0)
    return made


def judged(made: Aggregated) -> tuple[Verdict, Card]:
    found = verdict(made.arrays, made.meta, "Digits", "TopK1")
    assert found is not None
    return found, make_card(made.arrays, made.meta, styles(made), found, "Digits")


def test_a_leader_is_named_and_can_be_loaded() -> None:
    made = with_drops((0.0, 0.0, 0.4), (0.0, 0.4, 0.4))
    found, card = judged(made)
    assert card.headline == "WT leads."
    assert "WT reaches 4.0×" in card.sentences[0]
    assert card.light == "good"
    home = take_home(made.arrays, found, styles(made), {"command": "luigi RunExperiment --config a/b.yaml"}, "b")
    assert home is not None
    assert 'api.load("a/b.yaml", method="ThresNet", keep_ratio=0.25, net=0, repetition=0)' in home.python
    assert "export a/b.yaml --method ThresNet --keep-ratio 0.25 --net 0 --repetition 0" in home.shell
    of_sweep = take_home(made.arrays, found, styles(made), {"command": "luigi --config a/b.yaml"}, "b_lr0.1")
    assert of_sweep is not None
    assert 'member="b_lr0.1"' in of_sweep.python
    made.arrays["axes/method"] = made.arrays["axes/method"].astype(object)
    made.arrays["axes/method"][1] = "my pruners:ROW"
    quoted = take_home(made.arrays, found, styles(made), {"command": "luigi RunExperiment --config 'a b.yaml'"}, "a b")
    assert quoted is not None
    assert "export 'a b.yaml' --method 'my pruners:ROW'" in quoted.shell


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("luigi --module luigi_prune RunExperiment", "sample/digits.yaml"),  # the one that the packaged luigi.cfg names
        ("luigi --module luigi_prune RunExperiment --config 'my files/digits.yaml'", "my files/digits.yaml"),
        ("luigi --module luigi_prune RunExperiment --config=b.yaml", "b.yaml"),
        ("pytest -k 'it", "mine.yaml"),
    ],
)
def test_the_experiment_file_is_the_one_of_the_command(command: str, file: str) -> None:
    assert config_of({"command": command}, "digits") == file


def test_random_samples_make_no_network_to_take_home() -> None:
    made = with_drops((0.0, 0.0, 0.4), (0.0, 0.4, 0.4))
    found, _ = judged(made)
    assert take_home(made.arrays, found, styles(made), {"command": "luigi RunExperiment --smoke"}, "b") is None


def test_a_tie_is_a_tie() -> None:
    _, card = judged(with_drops((0.0, 0.0, 0.4), (0.0, 0.0, 0.4)))
    assert card.headline == "No method clearly leads: FT, WT."
    assert "no method is shown to be best" in card.decision


def test_a_bound_is_said_to_be_one() -> None:
    _, card = judged(with_drops((0.0, 0.0, 0.0), (0.0, 0.4, 0.4)))
    assert "WT reaches at least 8.0×" in card.sentences[0]
    assert any("WT: still within the level at the smallest keep ratio" in reason for reason in card.reasons)


def test_a_network_that_diverged_is_the_end_of_its_run() -> None:
    made = with_drops((0.0, 0.0, 0.4), (0.0, 0.4, 0.4))
    made.arrays["test/Digits/loss"][:, 4, 0, 1] = np.nan
    found, card = judged(made)
    assert not found.compression[1].at_least
    assert "WT reaches 4.0×" in card.sentences[0]


def test_the_best_mean_is_found_among_those_that_can_be_compared() -> None:
    made = with_drops((0.0, 0.0, 0.4), (0.0, 0.4, 0.4))
    found = pairwise(made.arrays, "Digits", "TopK1", 4.0)
    quality = measured_metric(made.arrays, "Digits", "TopK1")
    assert str(glance_table([found], styles(made), quality).rows[0][1]) == "WT"
    lower = replace(quality, lower=True)
    assert str(glance_table([found], styles(made), lower).rows[0][1]) == "FT"
    alone = replace(found, difference=np.full((2, 2), np.nan))
    assert glance_table([alone], styles(made), quality).rows[0][0] == "–"


def test_a_reason_has_labels_for_names_and_no_label_is_replaced() -> None:
    labels = {"ThresNet": "FilterThresNet, v2", "FilterThresNet": "FT"}
    given = method_styles(METHODS, [True, False, False], labels, {})
    assert readable_reason("ThresNet: few; FilterThresNet: none; AThresNet", given) == (
        "FilterThresNet, v2: few; FT: none; AThresNet"
    )


def test_nothing_within_the_level_names_nobody_and_loads_nothing() -> None:
    made = with_drops((0.2, 0.3, 0.4), (0.2, 0.3, 0.4))
    found, card = judged(made)
    assert (
        card.headline == "No method stays within 0.5 points of validation TopK1 of the unpruned network at any ratio."
    )
    assert take_home(made.arrays, found, styles(made), {}, "b") is None


def test_failures_are_flagged() -> None:
    made = with_drops((0.0, 0.0, 0.0), (0.0, 0.0, 0.87))
    made.arrays["layers/kept"][0, 1, 0, 1, 2] = 0
    made.arrays["cost/size"][2, 2, 0, 2] = 0.6
    for label in ("TopK1", "TopK5", "loss"):
        made.arrays[f"test/Digits/{label}"][3, 0, 0, 1] = np.nan
    made.arrays["test/Digits/loss"][3, 1, 0, 2] = np.inf  # a result like others
    made.arrays["test/Digits/TopK5"][3, 1, 0, 2] = np.nan
    chance = chance_of("TopK1", {"network": {"outputSize": 10}})
    found = flags(made.arrays, {"missing": {"Digits": 1}}, "Digits", "TopK1", chance)
    assert found == {
        (1, 1): ["collapse: nothing left of conv3"],
        (2, 2): ["missed ratio: by 20 %"],
        (0, 1): ["PARTIAL: 4 of 5"],
        (4, 2): found[4, 2],
    }
    assert found[4, 2][0].startswith("chance level")
    assert np.isnan(chance_of("IoU", {"network": {"outputSize": 10}}))


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [((10, 15), "epochs 11 to 15 of"), ((14, 15), "epoch 15 of"), ((15, 15), "none")],
)
def test_epochs_are_counted_from_one(epochs: tuple[int, int], expected: str) -> None:
    assert wording.retrained_text(epochs).startswith(expected)


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        ((15, 15), ""),
        ((10, 15), "from training epoch 11 on"),
        ((10, 12), "from training epoch 11 and retraining epoch 13"),
    ],
)
def test_early_stopping_is_mentioned_if_it_acts(stops: tuple[int, int], expected: str) -> None:
    text = wording.early_stopping({"early_stop_epochs": stops, "retraining_epochs": (8, 15)})
    assert text.startswith(expected)
    assert bool(text) == bool(expected)


def test_a_partial_report_names_the_test_sets_and_methods_that_lack_results() -> None:
    made = aggregate_results(make_grid(METHODS, RATIOS, nets=2, repetitions=1, test_sets=("Digits", "A", "B")), read)
    assert wording.partial_notice(made.arrays, made.meta, styles(made)) is None
    meta = {**made.meta, "partial": True, "missing": {"A": 1, "B": 40}}
    for label in ("TopK1", "TopK5", "loss"):
        made.arrays[f"test/A/{label}"][0, 0, 0, 2] = np.nan
        made.arrays[f"test/B/{label}"][..., 1:] = np.nan
    text = str(wording.partial_notice(made.arrays, meta, styles(made)))
    assert text.startswith(
        "PARTIAL: 21 of 66 evaluations are missing: 1 of 22 on A (FT); 20 of 22 on B (WT, FT); Digits is complete."
    )
    facts = dict(make_card(made.arrays, meta, styles(made), verdict(made.arrays, meta, "A", "TopK1"), "A").facts)
    assert (facts["results on A"], facts["results on all 3 test sets"]) == ("21 of 22", "45 of 66")
    meta["missing"]["Digits"] = 1
    for label in ("TopK1", "TopK5", "loss"):
        made.arrays[f"test/Digits/{label}"][1, ..., 0] = np.nan
        made.arrays[f"test/B/{label}"][:] = np.nan
    text = str(wording.partial_notice(made.arrays, meta, styles(made)))
    assert "all 22 on B." in text
    assert "1 of 22 on Digits (ReferenceNet)" in text
    assert "complete" not in text


@pytest.mark.parametrize(("mode", "expected"), [("retrain", 12), ("cascade", 14)])
def test_every_evaluation_counts_once(mode: str, expected: int) -> None:
    methods = ("ReferenceNet", "FakeNet", "ThresNet", "UniNet")
    made = aggregate_results(make_grid(methods, (0.5, 0.25), nets=2, repetitions=1, mode=mode), read)
    assert evaluated(made.arrays, made.meta) == [Evaluated("Digits", expected, expected, ())]
    for label in ("TopK1", "TopK5", "loss"):  # of a network that diverged
        made.arrays[f"test/Digits/{label}"][0, 0, 0, 2] = np.nan
    assert evaluated(made.arrays, made.meta)[0].missing == 0


def test_provenance_is_short() -> None:
    parents = {f"evaluate{at}": {"key": "0" * 64, "path": "x"} for at in range(900)}
    source = {"commit": "0123456789abcdef", "uncommitted_changes": True}
    lines = dict(provenance_lines({"source": source, "parents": parents, **{f"k{at}": at for at in range(30)}}))
    assert len(lines) == MOST_LINES
    assert lines["commit"] == "0123456789ab with uncommitted changes"
    assert lines["parents"] == "900, see data/provenance.json"


def test_latex_has_its_signs_escaped() -> None:
    text = latex(Table("T", "C", ("a_b", "%"), [("≥ 8.0×", "x & y")]))
    assert r"a\_b & \% \\" in text
    assert r"$\geq$ 8.0$\times$ & x \& y \\" in text


def test_intervals_may_be_open_or_missing() -> None:
    assert limits(1.0, np.inf) == "1.0 to ∞"
    assert limits(np.nan, 2.0) == ""
    assert (limits(-0.01, 0.2, "{:+.1f}"), limits(-0.01, np.inf)) == ("+0.0 to +0.2", "0.0 to ∞")  # no sign of a zero
    assert (number(-0.04, digits=1, sign=True), number(-0.06, digits=1, sign=True)) == ("+0.0", "-0.1")
