"""Analytic start: while x_t is mostly noise, the sources' own Gaussians answer in place of the networks.

At high noise a source's score is close to that of a Gaussian with its mean and covariance (Wang and Vastola 2024), and
the `gaussian` router parts hold just that. The composed estimate then needs no network call, at the very steps where
every source is still in play and composing costs most (science.md section 3).

Where the networks must take over is measured, not guessed. A few images are drawn with the closed form while the full
composition is asked beside it. Both make the same Gaussian step but for its mean, so the path of the one diverges from
the path of the other by a sum of known terms, and the divergence of what is drawn in the end cannot be larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from intarsia.composition.composite import CompositeDenoiser
from intarsia.composition.member import Conditions
from intarsia.diffusion import ImageNoise, Schedule, ddim_transition
from intarsia.errors import SettingsError

PROBED = 32
_FIRST = 2**48  # probes use the noise of images that nobody draws


@dataclass(frozen=True)
class Switch:
    """Where the networks take over.

    `below`: they answer below this time, the closed form above. `nats`: the bound on the divergence that the
    closed form brings, per image. `calls`: network calls that finding it took, in all.
    """

    below: float
    nats: float
    calls: int


# KL of two Gaussian steps of one variance: |b (x0_closed - x0_net)|^2 / (2 std^2), which for DDPM's posterior is
# (SNR_s - SNR_t) |x0_closed - x0_net|^2 / 2 (Kingma et al. 2021, VDM, eq. 13); the chain rule sums the steps.
def step_divergence(schedule: Schedule, t: float, s: float, closed: Tensor, networks: Tensor) -> float:
    """Nats per image between the steps from t to s that two estimates of x0 (B, ...) make, mean over the images."""
    at = torch.tensor([t, s], dtype=torch.float64)
    snr_t, snr_s = schedule.log_snr(at).exp().tolist()
    apart = (closed - networks).double().flatten(1).square().sum(dim=1).mean().item()
    return (snr_s - snr_t) * apart / 2


@torch.no_grad()
def find_switch(
    model: CompositeDenoiser,
    times: Tensor,
    *,
    budget: float,
    seed: int = 0,
    labels: Conditions | None = None,
    guidance_scale: float = 1.0,
) -> Switch:
    """The switch for a composition on a time grid: as late as the divergence stays within the budget.

    The networks are asked only until it is exceeded. Steps are DDPM's; other samplers use what is found for it.

    Args:
        times: (steps + 1,) falling to 0.
        budget: nats per image.
        labels: of the images that will be drawn; the probes take the different ones in turn, or as many of them as
            there are probes, evenly spread.

    Raises:
        SettingsError: the members have no Gaussian parts, or the budget is no positive number.
    """
    if model.closed_form is None:
        raise SettingsError(
            "an analytic start needs the 'gaussian' router part of every source; train with it, or draw without"
        )
    if not 0 < budget < float("inf"):
        raise SettingsError(f"an analytic start within {budget} nats: expected a positive number, such as 0.1")
    indices = [_FIRST + k for k in range(PROBED)]
    different = list(dict.fromkeys(labels or [None]))
    apart = max(1.0, len(different) / PROBED)
    asked = [different[int(k * apart) % len(different)] for k in range(PROBED)]
    run = model.run(indices, seed=seed, labels=asked, guidance_scale=guidance_scale)
    noise = ImageNoise(seed, indices)
    x_t, spent, below = noise.initial(model.latent_shape), 0.0, 1.0
    for step, (t, s) in enumerate(pairwise(times.tolist())):
        if s == 0:  # the last step keeps x0_hat itself, and only a network draws details
            break
        at = torch.full((PROBED,), t, dtype=x_t.dtype)
        closed, networks = run.both(x_t, at)
        divergence = step_divergence(model.schedule, t, s, closed, networks)
        if spent + divergence > budget:
            break
        # Half way between two steps, so that no rounding of a time can decide who answers.
        spent, below = spent + divergence, (t + s) / 2
        move = ddim_transition(model.schedule, t, s, eta=1.0)
        x_t = move.mean(x_t, closed) + move.std * noise.step(step, model.latent_shape)
        run.observe(x_t, move)
    return Switch(below, spent, int(run.calls.sum()))
