"""The Fréchet distance against scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from intarsia.audit import frechet_distance
from intarsia.diffusion import keyed_normal
from intarsia.errors import InputError

from .plain import features


def by_scipy(first: Tensor, second: Tensor) -> float:
    """The published recipe, with a general matrix root."""
    linalg = pytest.importorskip("scipy.linalg")
    (m1, c1), (m2, c2) = ((rows.numpy().mean(0), np.cov(rows.numpy(), rowvar=False)) for rows in (first, second))
    return ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)


@pytest.mark.parametrize("dim", [2, 16, 48])
def test_equals_scipy(dim: int):
    mix = features(dim, dim, "mix") / dim**0.5
    first, second = features(300, dim, 1), features(200, dim, 2) @ mix + 0.3
    assert frechet_distance(first, second) == pytest.approx(by_scipy(first, second), rel=1e-6)


@pytest.mark.parametrize("dim", [3, 8])
def test_singular_covariances(dim: int):
    """With fewer rows than numbers a general root loses half of the digits; on a diagonal the truth is known."""
    turn = torch.linalg.qr(features(dim, dim, "turn")).Q

    def rows(*spread: float) -> Tensor:
        """Covariance diag(spread^2, 0, ...), turned."""
        axes = torch.zeros(2 * len(spread), dim, dtype=torch.float64)
        for k, width in enumerate(spread):
            axes[2 * k, k], axes[2 * k + 1, k] = width, -width
        return (axes * (len(axes) - 1) ** 0.5 / 2**0.5) @ turn

    # |shift|^2 = dim / 4, and sum (a - b)^2 = 1 + 1 + 9
    assert frechet_distance(rows(2, 1, 0), rows(1, 0, 3) + 0.5) == pytest.approx(dim / 4 + 11, rel=1e-12)


def test_of_a_set_with_itself_is_zero():
    rows = features(20, 32)
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)


def test_knows_no_precision_but_its_own():
    first, second = features(40, 8, 1), features(40, 8, 2)
    assert frechet_distance(first.float(), second.float()) == pytest.approx(frechet_distance(first, second), rel=1e-5)


@pytest.mark.parametrize("bad", [torch.zeros(1, 3), torch.zeros(4), torch.full((4, 3), torch.nan)])
def test_bad_features_are_refused(bad: Tensor):
    with pytest.raises(InputError, match="features"):
        frechet_distance(bad, keyed_normal((4, 3), "rows"))


def test_features_of_two_networks_are_refused():
    with pytest.raises(InputError, match="one network only"):
        frechet_distance(features(4, 3), features(4, 2))
