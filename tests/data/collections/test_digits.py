"""The digits of scikit-learn, shared among owners."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from intarsia.data import share_alike
from intarsia.data.collections import DIGIT_OWNERS, digits
from intarsia.errors import MissingExtra, SettingsError, UnknownName

datasets = pytest.importorskip("sklearn.datasets")


def test_default_owners_hold_all_digits_between_them():
    sources = digits()
    assert [source.name for source in sources] == list(DIGIT_OWNERS)
    assert sum(len(source) for source in sources) == 1797
    assert [source.labels for source in sources] == [tuple(classes) for classes in DIGIT_OWNERS.values()]
    assert all(source.images.shape[1:] == (8, 8, 1) for source in sources)
    assert all(source.licence == "CC-BY-4.0" and not share_alike(source.licence) for source in sources)
    assert len({id for source in sources for id in source.manifest.ids}) == 1797


def test_pixels_are_the_ink_counts():
    bunch = datasets.load_digits()
    (source,) = digits({"all": "0123456789"})
    for sample, image in zip(source.manifest, source.images, strict=True):
        row = int(sample.file_name.removesuffix(".png"))
        assert np.array_equal(np.rint(image[..., 0] * (16 / 255)), bunch.images[row])
        assert sample.label == str(bunch.target[row])
        assert sample.text == f"the digit {sample.label}"


def test_senseless_owners():
    with pytest.raises(UnknownName, match="unknown digit 'x'"):
        digits({"ada": ("1", "x")})
    with pytest.raises(SettingsError, match="the digit 1 has 2 owners"):
        digits({"ada": ("1",), "bob": ("1", "2")})
    with pytest.raises(SettingsError, match="holds no digit"):
        digits({"ada": ()})


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match="sklearn"):
        digits()
