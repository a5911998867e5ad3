"""Precision, recall, density and coverage against plain loops and cases that anybody can see."""

from __future__ import annotations

import pytest
import torch

from intarsia.audit import density_coverage, neighbourhoods, precision_recall
from intarsia.errors import InputError

from . import plain
from .plain import features


@pytest.mark.parametrize("cells", [60, 2**24])
def test_equal_plain_loops(cells: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbourhoods, "_CELLS", cells)
    fake, real = 0.8 * features(25, 3, 1) + 0.3, features(31, 3, 2)
    truth = plain.neighbourhoods(fake, real)
    assert precision_recall(fake, real) == pytest.approx((truth["precision"], truth["recall"]), rel=1e-12)
    assert density_coverage(fake, real) == pytest.approx((truth["density"], truth["coverage"]), rel=1e-12)
    assert 0 < min(truth["precision"], truth["recall"], truth["coverage"]) < 1


def test_a_collapsed_model_is_precise_and_covers_little():
    real = features(60, 4, "real")
    collapsed = real[:1] + 1e-3 * features(60, 4, "fake")
    precision, recall = precision_recall(collapsed, real)
    density, coverage = density_coverage(collapsed, real)
    assert precision == 1
    assert recall < 0.05
    assert density > 0.5
    assert coverage < 0.4


def test_copies_of_all_reals_lie_on_the_edges_of_balls():
    """Every ball holds its own centre and the neighbours that it reaches to, whatever the rounding."""
    real = 10 + features(40, 3, "real")
    assert density_coverage(real.flip(0), real) == (6 / 5, 1)


def test_images_far_away_count_for_nothing():
    real = features(20, 2)
    assert precision_recall(real + 100, real) == (0, 0)
    assert density_coverage(real + 100, real) == (0, 0)


def test_rows_must_have_neighbours():
    with pytest.raises(InputError, match="at least 6 rows"):
        density_coverage(features(5, 2), features(9, 2))
    with pytest.raises(InputError, match="one network only"):
        precision_recall(features(9, 2), torch.zeros(9, 3))


@pytest.mark.parametrize("dim", [3, 92, 775, 998])
def test_copies_of_one_picture_lie_in_balls_without_radius(dim: int):
    """More copies of a picture than neighbours: rounding differs with the shapes that are multiplied."""
    real = (10 + features(22, dim, "copied")).repeat(7, 1)
    for fake in (real[:7], real[3:14], real.flip(0)):
        assert precision_recall(fake, real)[0] == 1
        assert density_coverage(fake, real)[0] == pytest.approx(7 / 5)
