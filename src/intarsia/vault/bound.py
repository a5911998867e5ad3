"""A sanity bound on router parts that come from elsewhere: nobody may claim more of the weights than a density can.

If p_i and the core's p_0 are densities, the mean of p_i / p_0 over the core is 1, at every noise level. A part that was
made to draw all weights to itself, whatever the image, shows a larger mean. Ratios are cut at `CUT` before the mean is
taken, which makes it smaller for an honest part and keeps a few draws from deciding: its standard deviation is then at
most sqrt(`CUT` / draws), so that an honest density has practically no chance to come above `MOST`.

A mixture that is a density at one noise level is one at all. What a network says may be another thing at every time, so
it is asked at times that nobody knows beforehand, and at those at which samplers ask.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment
from intarsia.data import to_float
from intarsia.diffusion import keyed_generator, keyed_normal
from intarsia.errors import IncompatibleError
from intarsia.routers import GaussianPart, ReferenceBank, ReferencePart
from intarsia.vault.package import Core
from intarsia.vault.parts import read_part

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
CUT, MOST = 64.0, 2.0
_DRAWS = 4096
_PICTURES = 512  # of the core, which a backbone has to look at for a reference part
_WINDOWS = 8  # of time, in each of which a reference part is asked once for every picture
_STEPS = (10, 20, 25, 30, 40, 50, 100, 200, 250)  # of samplers
_FIRST = 0.02  # below it no step is taken, and what is left of the noise tells networks little
_BINS = 32  # of a calibration, so that it cannot change between times that are asked for


def check_bound(compartment: Compartment, backbone: Backbone, core: Core) -> dict[str, float]:
    """The largest mean over the noise levels, by kind of router part; of a network it is an estimate, never the same.

    Raises:
        IncompatibleError: a part is above the bound, is no density, or is of a kind for which there is no bound.
        CorruptError: a part cannot be read.
    """
    found = {}
    for kind in compartment.router_settings:
        if kind not in _MEANS:
            raise IncompatibleError(
                f"compartment '{compartment.name}' has a router part '{kind}', whose claims cannot be checked; it must "
                f"be trained with no others than {', '.join(BOUNDED)}"
            )
        found[kind] = max(_MEANS[kind](compartment, backbone, core).values())
        if not found[kind] <= MOST:  # also where it is no number
            raise IncompatibleError(
                f"the router part '{kind}' of '{compartment.name}' claims the core {found[kind]:.3g} times over, where "
                f"a density does so once and {MOST:g} is the bound; it would draw weights to itself: ask its owner"
            )
    return found


def _gaussian(compartment: Compartment, backbone: Backbone, core: Core) -> dict[float, float]:
    part = read_part(compartment, "gaussian", core)
    assert isinstance(part, GaussianPart)
    frames = part.mixture.eigenvectors.double()
    if not torch.allclose(frames.mT @ frames, torch.eye(frames.shape[-1], dtype=torch.float64), atol=1e-3):
        raise IncompatibleError(
            f"the gaussian part of '{compartment.name}' is no density (its axes are not orthonormal); ask its owner"
        )
    known, claimed = core.basis.core.to(torch.float64), part.mixture.to(torch.float64)
    z = known.sample(_DRAWS, keyed_generator("router bound")).double()
    noise = keyed_normal(z.shape, "router bound noise").double()
    means = {}
    for t in TIMES:
        alpha, sigma = _levels(backbone, t, len(z))
        z_t = alpha[:, None] * z + sigma[:, None] * noise
        means[t] = _mean(claimed.log_prob(z_t, alpha, sigma) - known.log_prob(z_t, alpha, sigma))
    return means


def _reference(compartment: Compartment, backbone: Backbone, core: Core) -> dict[float, float]:
    part = read_part(compartment, "reference", core)
    assert isinstance(part, ReferencePart)
    if not core.kept:
        raise IncompatibleError("this vault's core kept no pictures, with which a reference part could be checked")
    if part.calibration.shape[0] > _BINS:
        raise IncompatibleError(
            f"the reference part of '{compartment.name}' is calibrated in {part.calibration.shape[0]} bins of time, "
            f"{_BINS} at most can be checked; its owner must fit it with fewer"
        )
    bank = ReferenceBank([part], backbone)
    latents = backbone.encode(to_float(core.samples[:_PICTURES]))
    noise = keyed_normal(latents.shape, "router bound pictures")
    draws = keyed_generator("router bound times", secrets.token_hex(16))
    means = {}
    for window in range(_WINDOWS):
        t = _times_in(window, len(latents), draws)
        alpha, sigma = (
            level(t).to(latents.dtype).view(-1, *[1] * (latents.ndim - 1))
            for level in (backbone.schedule.alpha, backbone.schedule.sigma)
        )
        means[window / _WINDOWS] = _mean(bank(alpha * latents + sigma * noise, t.float())[:, 0].double())
    return means


def _times_in(window: int, count: int, draws: np.random.Generator) -> Tensor:
    """(count,) float64 times in a window of [0, 1]: half of them anywhere, half where samplers take their steps."""
    anywhere = (window + draws.random(count)) / _WINDOWS
    steps = draws.choice(_STEPS, count)
    stepped = np.where(draws.random(count) < 0.5, np.round(anywhere * steps) / steps, anywhere)
    return torch.from_numpy(stepped).clamp(_FIRST, 1.0)


_MEANS: Mapping[str, Callable[[Compartment, Backbone, Core], dict[float, float]]] = MappingProxyType(
    {"gaussian": _gaussian, "reference": _reference}
)
BOUNDED = tuple(_MEANS)
"""Kinds of router parts whose claims can be checked; a compartment with another is not taken in."""


def _levels(backbone: Backbone, t: float, count: int) -> tuple[Tensor, Tensor]:
    times = torch.full((count,), t, dtype=torch.float64)
    return backbone.schedule.alpha(times), backbone.schedule.sigma(times)


def _mean(log_ratio: Tensor) -> float:
    return log_ratio.exp().clamp(max=CUT).mean().item()
