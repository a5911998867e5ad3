from __future__ import annotations

import pytest
import torch

from intarsia.diffusion import SPACINGS, Flow, Schedule, VPLinear, time_grid
from intarsia.diffusion.grid import LOG_SNR_FIRST, LOG_SNR_LAST
from intarsia.errors import SettingsError, UnknownName


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 7, 250])
@pytest.mark.parametrize("t_max", [1.0, 0.6])
def test_times_fall_from_t_max_to_zero(schedule: Schedule, spacing: str, steps: int, t_max: float) -> None:
    times = time_grid(schedule, steps, spacing, t_max)
    assert times.shape == (steps + 1,)
    assert times.dtype == torch.float64
    assert times[0] == t_max
    assert times[-1] == 0
    assert (times.diff() < 0).all()


def test_uniform_is_uniform_in_t() -> None:
    torch.testing.assert_close(time_grid(Flow(), 4, "uniform"), torch.tensor([1, 0.75, 0.5, 0.25, 0]).double())


def test_log_snr_is_uniform_in_log_snr(schedule: Schedule) -> None:
    log_snr = schedule.log_snr(time_grid(schedule, 10, "log_snr", 0.9)[:-1])
    expected = torch.linspace(schedule.log_snr(torch.tensor(0.9).double()).item(), LOG_SNR_LAST, 10).double()
    torch.testing.assert_close(log_snr, expected, rtol=1e-5, atol=1e-5)


def test_log_snr_spacing_starts_its_range_where_alpha_is_zero(noise_ending: Schedule) -> None:
    second, third = noise_ending.log_snr(time_grid(noise_ending, 20, "log_snr")[1:3]).tolist()
    assert third - second == pytest.approx(second - LOG_SNR_FIRST)


def test_times_of_vp_linear_hit_the_training_steps() -> None:
    assert torch.equal((time_grid(VPLinear(), 1000) * 1000).round() / 1000, time_grid(VPLinear(), 1000))


def test_unknown_spacing_names_the_known() -> None:
    with pytest.raises(UnknownName, match=r"unknown time spacing 'karras'.*log_snr, uniform"):
        time_grid(Flow(), 4, "karras")


@pytest.mark.parametrize(
    ("steps", "spacing", "t_max", "message"),
    [
        (0, "uniform", 1.0, "at least 1"),
        (4, "uniform", 0.0, r"t_max = 0\.0"),
        (4, "uniform", 1.5, r"t_max = 1\.5"),
        (4, "uniform", float("nan"), "t_max = nan"),
        (4, "log_snr", 1e-3, "nothing is left to space"),
    ],
)
def test_senseless_grids_are_refused(steps: int, spacing: str, t_max: float, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        time_grid(Flow(), steps, spacing, t_max)
