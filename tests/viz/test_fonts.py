"""Captions in any script: a font or a placeholder, and never a flood of warnings."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.ft2font import FT2Font

from ragaf_exp.report.svg import chart
from ragaf_exp.viz.attention import attention_figure
from ragaf_exp.viz.fonts import MISSING, default_font, lettering
from ragaf_exp.viz.grids import comparison, grid

CAPTIONS = ["赤い円と青い星", "دائرة حمراء", "🍎 and ❤️", "a\tb\x07c", "क्षेत्र", "한국어 문장", "\U0010ffff"]
RED = np.full((16, 16, 3), (255, 0, 0), np.uint8)


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("caption", CAPTIONS)
def test_figures_take_captions_in_any_script(caption: str) -> None:
    words = caption.split() or [caption]
    attention_figure(words, np.ones((2, len(words))), RED, title=caption)
    comparison({"sketch": RED}, caption)
    grid([[RED]], [caption], [caption])


@pytest.mark.parametrize("caption", CAPTIONS)
def test_charts_keep_the_text_itself_for_the_page(caption: str) -> None:
    title = caption.replace("\x07", "")
    assert title.split()[0] in chart("any", title, lambda axes: axes.plot([0, 1]))


def test_text_that_the_default_font_has_is_unchanged() -> None:
    assert lettering("größe, Ångström → x\ny") == (default_font(), "größe, Ångström → x\ny")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_every_letter_has_a_glyph(text: str) -> None:
    path, shown = lettering(text)
    assert Path(path).is_file()
    known = {*map(chr, FT2Font(path).get_charmap()), "\n"}
    assert set(shown) <= known and len(shown) <= len(text)


def test_words_stay_apart_where_no_font_has_them() -> None:
    assert lettering("\U0010ffff a")[1] in (f"{MISSING} a", "? a")
