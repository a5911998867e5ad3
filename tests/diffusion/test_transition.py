from __future__ import annotations

import pytest
import torch

from intarsia.diffusion import Flow, Schedule, Transition, ddim_transition, keyed_normal
from intarsia.errors import SettingsError

STEPS = [(1.0, 0.9), (0.7, 0.3), (0.5, 0.499), (0.001, 0.0), (1.0, 0.0)]


@pytest.mark.parametrize(("t", "s"), STEPS)
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_the_marginal_is_kept(schedule: Schedule, t: float, s: float, eta: float) -> None:
    """With the true x0, x_s must have mean alpha_s x0 and variance sigma_s^2."""
    step = ddim_transition(schedule, t, s, eta)
    times = torch.tensor([t, s], dtype=torch.float64)
    (alpha_t, alpha_s), (sigma_t, sigma_s) = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    assert step.a * alpha_t + step.b == pytest.approx(alpha_s, abs=1e-12)
    assert step.a**2 * sigma_t**2 + step.std**2 == pytest.approx(sigma_s**2, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("t", "s"), STEPS[:3])
def test_eta_one_is_the_gaussian_posterior(schedule: Schedule, t: float, s: float) -> None:
    """Bayes' rule for N(x_s; alpha_s x0, sigma_s^2) and x_t = r x_s + noise, r = alpha_t / alpha_s."""
    step = ddim_transition(schedule, t, s, eta=1.0)
    times = torch.tensor([t, s], dtype=torch.float64)
    (alpha_t, alpha_s), (sigma_t, sigma_s) = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    ratio = alpha_t / alpha_s
    forward_variance = sigma_t**2 - ratio**2 * sigma_s**2
    precision = 1 / sigma_s**2 + ratio**2 / forward_variance
    assert step.std**2 == pytest.approx(1 / precision, rel=1e-8)
    assert step.a == pytest.approx(ratio / forward_variance / precision, rel=1e-8)
    assert step.b == pytest.approx(alpha_s / sigma_s**2 / precision, rel=1e-8)


def test_eta_zero_is_deterministic_and_eta_scales_the_noise(schedule: Schedule) -> None:
    assert ddim_transition(schedule, 0.8, 0.4).std == 0
    full = ddim_transition(schedule, 0.8, 0.4, 1.0).std
    assert ddim_transition(schedule, 0.8, 0.4, 0.5).std == pytest.approx(full / 2)


def test_last_step_returns_x0_hat(schedule: Schedule) -> None:
    step = ddim_transition(schedule, 0.02, 0.0, 1.0)
    assert (step.a, step.b, step.std) == (0.0, 1.0, 0.0)


def test_mean_is_affine() -> None:
    x_t, x0_hat = keyed_normal((2, 3), "x_t"), keyed_normal((2, 3), "x0")
    step = Transition(t=0.5, s=0.4, a=2.0, b=-3.0, std=1.0)
    torch.testing.assert_close(step.mean(x_t, x0_hat), 2 * x_t - 3 * x0_hat)


@pytest.mark.parametrize(
    ("t", "s", "eta", "message"),
    [
        (0.4, 0.4, 0.0, "times must fall"),
        (0.4, 0.5, 0.0, "times must fall"),
        (1.1, 0.5, 0.0, "times must fall"),
        (0.4, -0.1, 0.0, "times must fall"),
        (0.4, 0.2, 1.1, r"eta = 1\.1"),
        (0.4, 0.2, -0.1, r"eta = -0\.1"),
        (0.4, 0.2, float("nan"), "eta = nan"),
    ],
)
def test_senseless_steps_are_refused(t: float, s: float, eta: float, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ddim_transition(Flow(), t, s, eta)
