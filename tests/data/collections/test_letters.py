"""Letters: reproducible, disjoint for other seeds, and drawn like the digits they prepare for."""

from __future__ import annotations

import string
import sys

import numpy as np
import pytest

from intarsia.data import near_duplicates
from intarsia.data.collections import digits, letters
from intarsia.errors import MissingExtra, SettingsError

pytest.importorskip("matplotlib")
LETTERS = letters(1500)


def test_same_seed_same_letters_and_a_prefix_of_more():
    assert letters(300) == letters(300)
    assert {(s.id, s.file_name, s.label) for s in letters(300).manifest} < {
        (s.id, s.file_name, s.label) for s in LETTERS.manifest
    }


def test_each_letter_depends_on_its_index_alone(monkeypatch):
    module = sys.modules["intarsia.data.collections.glyphs"]
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert letters(50) == letters(50)
    assert set(letters(50).manifest.ids) < set(LETTERS.manifest.ids)


def test_other_seeds_give_other_letters():
    assert not set(letters(300, seed=1).manifest.ids) & set(LETTERS.manifest.ids)
    assert not {s.file_name for s in letters(30, seed=1).manifest} & {s.file_name for s in LETTERS.manifest}


def test_all_letters_and_nothing_else():
    assert LETTERS.name == "letters"
    assert set(LETTERS.labels) == set(string.ascii_letters)
    assert LETTERS.images.shape == (1500, 8, 8, 1)
    assert letters(3, size=28).images.shape == (3, 28, 28, 1)


def test_pictures_are_ink_counts_over_blocks():
    levels = np.rint(np.arange(17) * 255 / 16)
    assert set(np.unique(LETTERS.images)) == set(levels.astype(int))


def test_letters_look_like_the_digits():
    pytest.importorskip("sklearn")
    real = np.concatenate([source.images for source in digits()]).astype(float) / 255
    drawn = LETTERS.images.astype(float) / 255
    # As much ink, the same share of empty, full and grey pixels, and the full height used, as in the digits.
    assert drawn.mean() == pytest.approx(real.mean(), abs=0.03)
    for low, high in ((0, 0), (1 / 16, 0.5), (0.5, 0.99), (1, 1)):
        shares = [((x >= low) & (x <= high)).mean() for x in (drawn, real)]
        assert shares[0] == pytest.approx(shares[1], abs=0.05)
    assert (drawn[:, [0, -1]].max((2, 3)) > 0).all(1).mean() > 0.95


def test_letters_are_no_digits():
    pytest.importorskip("sklearn")
    assert all(near_duplicates(LETTERS, source) == [] for source in digits())


def test_tiny_pictures_run_out():
    with pytest.raises(SettingsError, match="different letters of 1 x 1 pixels turned up, 100 were asked for"):
        letters(100, size=1)


def test_senseless_settings_and_missing_fonts(monkeypatch):
    for settings in ({"count": 0}, {"count": 10**9}, {"count": 5, "size": 0}, {"count": 5, "seed": -1}):
        with pytest.raises(SettingsError, match="expected a whole number, "):
            letters(**settings)
    sys.modules["intarsia.data.collections.letters"]._glyphs.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match="matplotlib"):
        letters(1)
