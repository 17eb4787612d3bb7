"""Methods can be told apart by everybody, in the light and in the dark theme."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from luigi_prune.registry.method_rows import BUILTIN_METHODS
from luigi_prune.report.palette import DARK_CARD, LEAST_CONTRAST, LIGHT_CARD, PALETTE, contrast, on_dark, on_light
from luigi_prune.report.style import INK, method_styles
from tests.report.colour_vision import VISIONS, distance, seen

# Two colours nearer than this are taken for the same one.
APART = 16.0
NAMES = list(BUILTIN_METHODS)
STYLES = method_styles(
    NAMES,
    [BUILTIN_METHODS[name].granularity == "none" for name in NAMES],
    {},
    {name: BUILTIN_METHODS[name].color for name in NAMES},
)


def test_the_distance_is_that_of_its_paper() -> None:
    # Sharma, Wu and Dalal 2005, table 1, pairs 1, 7, 17 and 33.
    for first, second, expected in (
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((6.7747, -0.2908, -2.4247), (5.8714, -0.0985, -2.2286), 0.6377),
    ):
        assert distance(np.array(first), np.array(second)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("theme", [str, on_dark])
@pytest.mark.parametrize("vision", VISIONS)
def test_colours_of_the_palette_stay_apart(vision: str, theme: Callable[[str], str]) -> None:
    near = [distance(seen(theme(a), vision), seen(theme(b), vision)) for a, b in itertools.combinations(PALETTE, 2)]
    assert min(near) >= APART


def test_methods_of_similar_colour_differ_in_marker() -> None:
    assert len(STYLES) > 30
    for one, other in itertools.combinations(STYLES, 2):
        apart = min(
            distance(seen(theme(one.color), vision), seen(theme(other.color), vision))
            for vision in VISIONS
            for theme in (str, on_dark)
        )
        assert apart >= APART / 2 or one.marker != other.marker, (one.method, other.method)


@pytest.mark.parametrize("style", STYLES[1:], ids=lambda style: style.method)
def test_every_method_is_visible_on_both_cards(style: object) -> None:
    color = style.color  # type: ignore[attr-defined]
    assert color == BUILTIN_METHODS[style.method].color  # type: ignore[attr-defined]
    assert contrast(color, LIGHT_CARD) >= LEAST_CONTRAST
    assert contrast(on_dark(color), DARK_CARD) >= LEAST_CONTRAST


@pytest.mark.parametrize("color", ["#ffff00", "#ffffff", "#010101", "#808080"])
def test_any_colour_of_a_user_becomes_visible(color: str) -> None:
    assert contrast(on_light(color), LIGHT_CARD) >= LEAST_CONTRAST
    assert contrast(on_dark(color), DARK_CARD) >= LEAST_CONTRAST


def test_the_style_of_a_method_does_not_depend_on_the_others() -> None:
    picked = ["ReferenceNet", "PFPNet", "ALDSNet", "ThresNet"]
    colors = {name: BUILTIN_METHODS[name].color for name in picked}
    for style in method_styles(picked, [True, False, False, False], {}, colors)[1:]:
        assert style == next(each for each in STYLES if each.method == style.method)
    assert STYLES[0].color == INK
