from __future__ import annotations

import pytest
import torch
from torch import Tensor

from intarsia.diffusion import keyed_normal
from intarsia.routers.calibration import bin_of, calibrated, fit_bin, identity


def ratios(count: int) -> tuple[Tensor, Tensor]:
    """Exact log-ratios of N(1, 1) against N(-1, 1), 2x, at draws of either."""
    x = keyed_normal((count,), "calibration", dtype=torch.float64)
    return 2 * (x + 1), 2 * (x.flip(0) - 1)


def test_an_overconfident_ratio_is_put_right() -> None:
    source, core = ratios(4000)
    scale, shift = fit_bin(3 * source + 1, 3 * core + 1, 1e-6).tolist()
    assert scale == pytest.approx(1 / 3, abs=0.02)
    assert shift == pytest.approx(-1 / 3, abs=0.1)
    assert fit_bin(source, core, 1e-6).tolist() == pytest.approx([1, 0], abs=0.1)


def test_sides_of_different_size_count_alike() -> None:
    source, core = ratios(4000)
    assert fit_bin(source, core[:200], 1e-6)[1].item() == pytest.approx(0, abs=0.3), "log 20 = 3 if they did not"


@pytest.mark.parametrize("apart", [1.0, 50.0])
def test_few_samples_and_perfect_ones_stay_near_the_identity(apart: float) -> None:
    """Separated samples alone would send the scale to infinity."""
    scale, shift = fit_bin(torch.full((3,), apart), torch.full((3,), -apart), 1 / 3).tolist()
    assert 1 <= scale < 2
    assert shift == pytest.approx(0, abs=1e-6)


def test_a_ratio_that_points_the_wrong_way_is_ignored_and_not_turned() -> None:
    source, core = ratios(1000)
    assert fit_bin(-source, -core, 1e-6)[0] == 0


def test_calibrations_are_linear_between_the_middles_of_the_bins() -> None:
    table = torch.tensor([[[1.0, 0.0], [3.0, 1.0]], [[2.0, 0.0], [2.0, 0.0]]])
    h, t = torch.ones(5, 2), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    assert calibrated(h, t, table).tolist() == [[1, 2], [1, 2], [2.5, 2], [4, 2], [4, 2]]
    assert torch.equal(calibrated(h, t, identity(1)[None].repeat(2, 1, 1)), h)
    assert bin_of(t, 4).tolist() == [0, 1, 2, 3, 3]
