"""One sampler step as data: x_s = a x_t + b x0_hat + std noise, from time t down to s < t."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.diffusion.schedule import Schedule
from intarsia.errors import SettingsError


@dataclass(frozen=True)
class Transition:
    """x_s = a x_t + b x0_hat + std noise; all five numbers are float64, `std` is 0 for a deterministic step."""

    t: float
    s: float
    a: float
    b: float
    std: float

    def mean(self, x_t: Tensor, x0_hat: Tensor) -> Tensor:
        """Where the step would lead without noise, (B, ...): the mean of x_s if `x0_hat` is right."""
        return self.a * x_t + self.b * x0_hat


def ddim_transition(schedule: Schedule, t: float, s: float, eta: float = 0.0) -> Transition:
    """DDIM's step (Song et al. 2021, eq. 12 and 16), for any schedule.

    eta = 0 follows the probability-flow ODE; eta = 1 draws from the Gaussian posterior q(x_s | x_t, x0_hat), which is
    DDPM's step with its "fixed small" variance. What is left of x_t without alpha x0_hat is old noise; the new noise is
    sqrt(1 - eta^2 q) of it and eta sqrt(q) of fresh noise, where q = 1 - SNR_t / SNR_s.

    Raises:
        SettingsError: unless 0 <= s < t <= 1 and 0 <= eta <= 1.
    """
    if not 0 <= s < t <= 1:
        raise SettingsError(f"a step from t = {t} to s = {s}: times must fall, 0 <= s < t <= 1")
    if not 0 <= eta <= 1:
        raise SettingsError(f"eta = {eta}: give a number from 0 (deterministic) to 1 (DDPM's variance)")
    at = torch.tensor([t, s], dtype=torch.float64)
    (alpha_t, alpha_s), (sigma_t, sigma_s) = schedule.alpha(at).tolist(), schedule.sigma(at).tolist()
    log_snr_t, log_snr_s = schedule.log_snr(at).tolist()
    q = -math.expm1(log_snr_t - log_snr_s)
    a = sigma_s / sigma_t * math.sqrt(1 - eta**2 * q)
    return Transition(t=t, s=s, a=a, b=alpha_s - a * alpha_t, std=eta * sigma_s * math.sqrt(q))
