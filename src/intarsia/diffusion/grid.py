"""Times at which a sampler calls the network: descending, from noise to exactly 0."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from intarsia.diffusion.schedule import Schedule
from intarsia.errors import SettingsError, UnknownName

SPACINGS = ("log_snr", "uniform")

# Beyond these the picture is settled (sigma = .0067) or not yet begun (alpha = .0067). DDPM's betas span -10.1 to 9.2.
LOG_SNR_FIRST = -10.0
LOG_SNR_LAST = 10.0


def time_grid(schedule: Schedule, steps: int, spacing: str = "uniform", t_max: float = 1.0) -> Tensor:
    """`steps` + 1 times for a sampler.

    Args:
        schedule: the forward process.
        steps: number of sampler steps, at least 1.
        spacing: "uniform" in t, or "log_snr": uniform in log-SNR from t_max until it is 10, then one step to 0.
        t_max: first time, in (0, 1].

    Returns:
        (steps + 1,) float64, strictly descending from `t_max` to 0.

    Any other descending tensor that ends in 0 serves a sampler as well: diffusers' "leading", "trailing" and "linspace"
    timesteps n of N training steps are the times (n + 1) / N, followed by 0.

    Raises:
        UnknownName: no such spacing.
        SettingsError: `steps` or `t_max` out of range.
    """
    if spacing not in SPACINGS:
        raise UnknownName("time spacing", spacing, SPACINGS)
    if steps < 1:
        raise SettingsError(f"{steps} sampling steps: give at least 1")
    if not 0 < t_max <= 1:
        raise SettingsError(f"first time t_max = {t_max}: give a number in (0, 1]; 1 starts from noise")
    if spacing == "uniform":
        return torch.arange(steps, -1, -1, dtype=torch.float64) / steps * t_max
    return _uniform_in_log_snr(schedule, steps, t_max)


def checked_times(times: Tensor) -> list[tuple[float, float]]:
    """The steps (t, s) of a grid, t > s, as Python floats.

    Raises:
        SettingsError: unless `times` is a vector of two or more numbers that fall strictly, within [0, 1], to 0.
    """
    if times.ndim != 1 or len(times) < 2:
        raise SettingsError(f"sampling times of shape {tuple(times.shape)}: give a vector of two or more")
    values: list[float] = times.double().tolist()
    pairs = list(itertools.pairwise(values))
    if not (values[0] <= 1 and values[-1] == 0 and all(t > s for t, s in pairs)):
        raise SettingsError(
            f"sampling times run from {values[0]} to {values[-1]}: they must fall strictly, within [0, 1], to 0"
        )
    return pairs


def _uniform_in_log_snr(schedule: Schedule, steps: int, t_max: float) -> Tensor:
    start = torch.tensor([t_max], dtype=torch.float64)
    first = max(schedule.log_snr(start).item(), LOG_SNR_FIRST)
    if first >= LOG_SNR_LAST:
        raise SettingsError(
            f"t_max = {t_max} has a log-SNR of {first:.1f}, above {LOG_SNR_LAST}: nothing is left to space; raise it"
        )
    inner = schedule.time(torch.linspace(first, LOG_SNR_LAST, steps, dtype=torch.float64))[1:]
    return torch.cat([start, inner, torch.zeros(1, dtype=torch.float64)])
