"""Samplers: functions with one loop, from noise to picture, for any `Denoiser`.

All take a batch x_t (B, ...) that is noise at times[0], and a descending vector of times that ends in 0 (`time_grid`
makes one). Coefficients are Python floats computed in float64; the arithmetic on pictures is in the dtype of x_t. No
row of the batch touches another. Each is a function of the denoiser, written as a generator (`Stepwise`), so that many
runs under way can be answered together.

Which to take: `dpmpp_2m` for few steps; `dpmpp_2m_sde` for few steps where fresh noise is to mend the network's errors;
`ddpm`, or `ddim` with eta > 0, where weights or credit follow a stochastic path; `heun` as an accurate reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from intarsia.diffusion.asking import Steps, Stepwise, finished
from intarsia.diffusion.denoiser import Denoiser, PathObserver
from intarsia.diffusion.grid import checked_times
from intarsia.diffusion.noise import StepNoise
from intarsia.diffusion.schedule import Schedule
from intarsia.diffusion.transition import Transition, ddim_transition
from intarsia.errors import SettingsError

OnStep = Callable[[int, Tensor, Tensor], None]
"""Progress and previews: called after each step with (step, x_s, x0_hat)."""


# Song et al. 2021 (DDIM), eq. 12
@Stepwise
@torch.no_grad()
def ddim(
    denoiser: Denoiser,
    x_t: Tensor,
    times: Tensor,
    *,
    eta: float = 0.0,
    noise: StepNoise | None = None,
    on_step: OnStep | None = None,
) -> Steps:
    """DDIM: first order, deterministic at eta = 0; at eta = 1 every step draws from the Gaussian posterior (DDPM).

    Args:
        denoiser: the model; if it has `observe`, it sees every step.
        x_t: (B, ...) noise at times[0].
        times: (steps + 1,) strictly descending to 0.
        eta: share of fresh noise, in [0, 1].
        noise: where fresh noise comes from, such as `ImageNoise`; needed when eta > 0.
        on_step: called after each step with (step, x_s, x0_hat).

    Returns:
        x at time 0, (B, ...).

    Raises:
        SettingsError: times that do not fall to 0, eta out of range, or eta > 0 without noise.
    """
    _check_noise(eta, noise)
    for step, (t, s) in enumerate(checked_times(times)):
        transition = ddim_transition(denoiser.schedule, t, s, eta)
        x0_hat = yield _at(x_t, t)
        x_t = transition.mean(x_t, x0_hat) + _fresh_noise(transition, noise, step, like=x_t)
        if isinstance(denoiser, PathObserver):
            denoiser.observe(x_t, transition)
        if on_step is not None:
            on_step(step, x_t, x0_hat)
    return x_t


# Ho et al. 2020, eq. 7, over any subset of times
@Stepwise
def ddpm(denoiser: Denoiser, x_t: Tensor, times: Tensor, *, noise: StepNoise, on_step: OnStep | None = None) -> Steps:
    """DDPM with the posterior ("fixed small") variance, at any number of steps: `ddim` at eta = 1."""
    return (yield from ddim.steps(denoiser, x_t, times, eta=1.0, noise=noise, on_step=on_step))


# Probability-flow ODE in the angle theta = atan2(sigma, alpha): Salimans and Ho 2022, appendix D
@Stepwise
@torch.no_grad()
def heun(denoiser: Denoiser, x_t: Tensor, times: Tensor, *, on_step: OnStep | None = None) -> Steps:
    """Heun's method, second order, two calls per step; the last step, to time 0, is a DDIM step with one call.

    With y = x_t / |(alpha, sigma)| = cos(theta) x0_hat + sin(theta) eps_hat, the ODE is dy/dtheta = v. It stays finite
    where alpha = 0, and the usual variables x_t / alpha and sigma / alpha do not. The sigma of `VPLinear` is a square
    root at 0, so the order there needs times that are uniform in log-SNR.

    Args, returns and raises as in `ddim`.
    """
    schedule = denoiser.schedule
    for step, (t, s) in enumerate(checked_times(times)):
        x0_hat = yield _at(x_t, t)
        if s == 0:
            x_t = ddim_transition(schedule, t, s).mean(x_t, x0_hat)
        else:
            (theta_t, radius_t), (theta_s, radius_s) = _polar(schedule, t), _polar(schedule, s)
            y, d_theta = x_t / radius_t, theta_s - theta_t
            slope = _angular_v(y, x0_hat, theta_t)
            ahead = y + d_theta * slope
            x0_hat_ahead = yield _at(radius_s * ahead, s)
            slope_ahead = _angular_v(ahead, x0_hat_ahead, theta_s)
            x_t = radius_s * (y + d_theta * (slope + slope_ahead) / 2)
        if on_step is not None:
            on_step(step, x_t, x0_hat)
    return x_t


# Lu et al. 2022 (DPM-Solver++), algorithm 2
@Stepwise
def dpmpp_2m(denoiser: Denoiser, x_t: Tensor, times: Tensor, *, on_step: OnStep | None = None) -> Steps:
    """DPM-Solver++(2M): second order, one call per step, x0_hat extrapolated in half log-SNR; first order at both ends.

    A first step from alpha = 0 is infinitely long in log-SNR, so what it saw carries no weight in the second step.

    Args, returns and raises as in `ddim`.
    """
    return (yield from _extrapolating(denoiser, x_t, times, 0.0, None, on_step))


# Lu et al. 2022 (DPM-Solver++), appendix A: SDE-DPM-Solver++(2M)
@Stepwise
def dpmpp_2m_sde(
    denoiser: Denoiser, x_t: Tensor, times: Tensor, *, noise: StepNoise, on_step: OnStep | None = None
) -> Steps:
    """SDE-DPM-Solver++(2M): `ddpm` with x0_hat extrapolated as in `dpmpp_2m`; needs fewer steps than `ddpm`.

    An observer is shown each step without its extrapolation, which is the same for all whose estimates it compares.

    Args, returns and raises as in `ddim`.
    """
    return (yield from _extrapolating(denoiser, x_t, times, 1.0, noise, on_step))


@torch.no_grad()
def _extrapolating(
    denoiser: Denoiser, x_t: Tensor, times: Tensor, eta: float, noise: StepNoise | None, on_step: OnStep | None
) -> Steps:
    _check_noise(eta, noise)
    schedule = denoiser.schedule
    previous_x0_hat, previous_h = x_t, math.inf
    for step, (t, s) in enumerate(checked_times(times)):
        transition = ddim_transition(schedule, t, s, eta)
        x0_hat = yield _at(x_t, t)
        h = _half_log_snr(schedule, s) - _half_log_snr(schedule, t)
        ahead = 0.0 if step == 0 or s == 0 else h / (2 * previous_h)
        extrapolated = x0_hat + ahead * (x0_hat - previous_x0_hat)
        x_t = transition.mean(x_t, extrapolated) + _fresh_noise(transition, noise, step, like=x_t)
        if isinstance(denoiser, PathObserver):
            denoiser.observe(x_t - transition.b * (extrapolated - x0_hat), transition)
        previous_x0_hat, previous_h = x0_hat, h
        if on_step is not None:
            on_step(step, x_t, x0_hat)
    return x_t


@dataclass(frozen=True)
class Sampler:
    """A sampler by name, called alike whichever it is; noise reaches only those that are stochastic."""

    name: str
    run: Stepwise[...]
    calls_per_step: int
    stochastic: bool
    takes_eta: bool = False

    def __call__(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        times: Tensor,
        *,
        eta: float = 0.0,
        noise: StepNoise | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """x at time 0, (B, ...); arguments as in `ddim`.

        Raises:
            SettingsError: as `ddim`, or `eta` for a sampler that has none.
        """
        asking = self.steps(denoiser, x_t, times, eta=eta, noise=noise, on_step=on_step)
        return finished(asking, lambda question: denoiser(*question))

    def steps(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        times: Tensor,
        *,
        eta: float = 0.0,
        noise: StepNoise | None = None,
        on_step: OnStep | None = None,
    ) -> Steps:
        """The same, asking for x0_hat step by step instead of calling the denoiser.

        Raises:
            As calling it.
        """
        self.check_eta(eta)
        if self.takes_eta:
            return self.run.steps(denoiser, x_t, times, eta=eta, noise=noise, on_step=on_step)
        if self.stochastic:
            return self.run.steps(denoiser, x_t, times, noise=noise, on_step=on_step)
        return self.run.steps(denoiser, x_t, times, on_step=on_step)

    def check_eta(self, eta: float) -> None:
        """Refuse an `eta` that this sampler does not take.

        Raises:
            SettingsError: it is not 0 and the sampler has none.
        """
        if eta != 0 and not self.takes_eta:
            raise SettingsError(
                f"sampler '{self.name}' takes no eta, found {eta}; ddim does, and ddpm is ddim at eta = 1"
            )

    def calls(self, steps: int) -> int:
        """Denoiser calls of a run of `steps` steps; the last step, to time 0, takes one in every sampler."""
        return self.calls_per_step * (steps - 1) + 1


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        sampler.name: sampler
        for sampler in (
            Sampler("ddim", ddim, calls_per_step=1, stochastic=False, takes_eta=True),
            Sampler("ddpm", ddpm, calls_per_step=1, stochastic=True),
            Sampler("dpmpp_2m", dpmpp_2m, calls_per_step=1, stochastic=False),
            Sampler("dpmpp_2m_sde", dpmpp_2m_sde, calls_per_step=1, stochastic=True),
            Sampler("heun", heun, calls_per_step=2, stochastic=False),
        )
    }
)


def _at(x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
    # Half precision would move t itself: .999 is 1 in bfloat16.
    dtype = torch.promote_types(x_t.dtype, torch.float32)
    return x_t, torch.full((len(x_t),), t, dtype=dtype, device=x_t.device)


def _check_noise(eta: float, noise: StepNoise | None) -> None:
    if eta > 0 and noise is None:
        raise SettingsError(
            f"eta = {eta} draws fresh noise at each step, but noise is None: give ImageNoise(seed, indices)"
        )


def _fresh_noise(transition: Transition, noise: StepNoise | None, step: int, *, like: Tensor) -> Tensor | float:
    if transition.std == 0 or noise is None:
        return 0.0
    return transition.std * noise.step(step, like.shape[1:]).to(like)


def _half_log_snr(schedule: Schedule, t: float) -> float:
    return schedule.log_snr(torch.tensor(t, dtype=torch.float64)).item() / 2


def _polar(schedule: Schedule, t: float) -> tuple[float, float]:
    """(theta, radius) of the point (alpha, sigma)."""
    at = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = schedule.alpha(at).item(), schedule.sigma(at).item()
    return math.atan2(sigma, alpha), math.hypot(alpha, sigma)


# v = cos(theta) eps_hat - sin(theta) x0_hat, with eps_hat = (y - cos(theta) x0_hat) / sin(theta)
def _angular_v(y: Tensor, x0_hat: Tensor, theta: float) -> Tensor:
    return (math.cos(theta) * y - x0_hat) / math.sin(theta)
