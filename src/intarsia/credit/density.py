"""How likely an image is under a model: the probability-flow ODE, and what each member adds to it.

Every forward process becomes the same in z = x_t / (alpha^2 + sigma^2)^(1/2) and u = log(sigma / alpha): with
a = (1 + e^(2u))^(-1/2) the flow is dz/du = a (a z - x0_hat), and along a path d log p = -div(dz/du) du. So the
log-density of a clean image is that of the noise it flows to, plus the integral of a divergence. A composition's drift
is a sum over its members; so is its divergence (the paper's eq. 6).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.checks import check_number, check_seed, check_whole
from intarsia.diffusion import Denoiser, Schedule, expand, keyed_generator
from intarsia.errors import SettingsError

NOISE = -5.0
"""The log-SNR at which what is left of an image, but for its mean, is nothing beside the noise."""
Drifts = Callable[[Tensor, float], Tensor]
"""(z (B, ...), u) -> the parts of dz/du, (B, n, ...); the drift is their sum over n."""


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """How the ODE is solved.

    Args:
        steps: of Runge and Kutta's method, uniform in log-SNR; each asks the model at four points.
        probes: directions in which the divergence is measured (Hutchinson), two calls each; None takes every
            dimension, which is exact and affordable for a few dozen of them.
        log_snr: where the path begins, at the image, and where it ends, in the noise; a process that ends before ends
            the path as well. The density is that of the image with noise of the first level: without any, an image of a
            thin set has none.
        step: length of the difference quotient, in standard deviations of the noise.
        seed: of the probes.
    """

    steps: int = 30
    probes: int | None = 4
    log_snr: tuple[float, float] = (8.0, -12.0)
    step: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("steps", self.steps)
        check_seed(self.seed)
        if self.probes is not None:
            check_whole("probes", self.probes)
        check_number("step", self.step, above=0, most=1)
        first, last = self.log_snr
        if not first > last:
            raise SettingsError(f"log_snr {self.log_snr}: the path leads from the image, high, to the noise, low")


@dataclass(frozen=True)
class FlowDensity:
    """log p of images (N,) in nats, float64, as a sum.

    `end` (N,) is the log-density of the noise that each image flows to; `parts` (N, n) is what each member's share of
    the drift adds; `spread` (N,) is the standard error that the probes leave, 0 for none.
    """

    end: Tensor
    parts: Tensor
    spread: Tensor

    @property
    def log_density(self) -> Tensor:
        """log p (N,)."""
        return self.end + self.parts.sum(dim=1)


# Song et al. 2021 (score SDE), eq. 39, in the coordinates of the module's docstring
@torch.no_grad()
def flow_density(drifts: Drifts, schedule: Schedule, x0: Tensor, settings: FlowSettings | None = None) -> FlowDensity:
    """Log-density of images (N, ...) under a model given by the parts of its drift.

    Raises:
        SettingsError: the forward process ends in so little noise that more than the mean of an image is left in it.
    """
    settings = settings or FlowSettings()
    reached = schedule.log_snr(torch.ones((), dtype=torch.float64)).item()
    if reached > NOISE:
        raise SettingsError(
            f"this process ends at a log-SNR of {reached:.1f}, where images show; a density needs one that ends at "
            f"{NOISE:g} or below"
        )
    first, last = (-level / 2 for level in (settings.log_snr[0], max(settings.log_snr[1], reached)))
    directions = probes(x0, settings)
    parts = torch.zeros(len(x0), len(directions), 1, dtype=torch.float64)
    z, width = signal(first) * x0, (last - first) / settings.steps
    for step in range(settings.steps):
        u = first + step * width
        k1, d1 = _drift(drifts, z, u, directions, settings.step)
        k2, d2 = _drift(drifts, z + width / 2 * k1, u + width / 2, directions, settings.step)
        k3, d3 = _drift(drifts, z + width / 2 * k2, u + width / 2, directions, settings.step)
        k4, d4 = _drift(drifts, z + width * k3, u + width, directions, settings.step)
        z, parts = z + width / 6 * (k1 + 2 * k2 + 2 * k3 + k4), parts + width / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    mean = parts.mean(dim=1)
    exact = settings.probes is None or len(directions) == 1
    spread = torch.zeros(len(x0)) if exact else parts.sum(dim=2).std(dim=1) / len(directions) ** 0.5
    return FlowDensity(_log_noise(drifts, z, last) + x0[0].numel() * math.log(signal(first)), mean, spread.double())


def signal(u: float) -> float:
    """a(u), the signal coefficient of the variance-preserving process at this log noise-to-signal ratio."""
    return (1 + math.exp(2 * u)) ** -0.5


def model_input(schedule: Schedule, z: Tensor, u: float) -> tuple[Tensor, Tensor]:
    """x_t (B, ...) and t (B,) of a forward process, in the dtype of z."""
    t = schedule.time(torch.full((len(z),), -2 * u, dtype=torch.float64))
    return expand(schedule.alpha(t).to(z), z) / signal(u) * z, t.to(z.dtype)


def _log_noise(drifts: Drifts, z: Tensor, u: float) -> Tensor:
    """log N(z; a x0_hat, I) (N,) float64: at high noise x0_hat is all but the mean of the data."""
    around = (1 - signal(u) ** 2) * z + drifts(z, u).sum(dim=1)
    return -0.5 * (around.double().flatten(1).square() + math.log(2 * math.pi)).sum(dim=1)


def drift_of(denoiser: Denoiser) -> Drifts:
    """The drift of a model, in one part."""

    def drifts(z: Tensor, u: float) -> Tensor:
        a = signal(u)
        return (a * (a * z - denoiser(*model_input(denoiser.schedule, z, u))))[:, None]

    return drifts


def probes(x0: Tensor, settings: FlowSettings) -> Tensor:
    """Directions (m, ...) with E[v v^T] = I, shared by all images: signs, or sqrt(D) times every unit vector."""
    shape = x0.shape[1:]
    if settings.probes is None:
        count = math.prod(shape)
        return (torch.eye(count, dtype=x0.dtype) * count**0.5).reshape(count, *shape)
    generator = keyed_generator("credit probes", settings.seed)
    signs = generator.integers(0, 2, size=(settings.probes, *shape)) * 2 - 1
    return torch.from_numpy(signs).to(x0.dtype)


# Hutchinson 1989: div f = E[v^T (df/dz) v], by central differences
def _drift(drifts: Drifts, z: Tensor, u: float, directions: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """The drift (N, ...), and v^T J v of each of its parts for every direction: (N, m, n) float64."""
    length = step * math.exp(u) * signal(u)
    found = []
    for v in directions:
        along = ((drifts(z + length * v, u) - drifts(z - length * v, u)) * v).double()
        found.append(along.flatten(2).sum(dim=2) / (2 * length))
    return drifts(z, u).sum(dim=1), torch.stack(found, dim=1)
