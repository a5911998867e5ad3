"""Weights that follow the sampler's path: a Bayes filter over the members (science.md section 3, `ito`).

Each stochastic step draws x_s from a Gaussian whose mean the composition chose. How well each member would have
predicted that x_s is evidence for it; summed over the steps it is log p(path | member), from nothing but the members'
own estimates, which sampling needs anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from intarsia.composition.member import Labels
from intarsia.composition.weights import Evidence, Moved
from intarsia.diffusion import Schedule
from intarsia.errors import SettingsError
from intarsia.routers import LabelShares, label_log_shares

LOG_SNR_OF_NOISE = -5.0  # from here on x_t is noise that no member can claim; Stable Diffusion's process ends at -5.4


# Skreta et al. 2025 (SuperDiff, arXiv 2412.17762): logit_i -= ||x_s - mu_i||^2 / (2 std^2) after each step
@dataclass(frozen=True)
class Ito:
    """The posterior of the members given the path so far: no router parts at all.

    At eta = 1 and many steps it estimates w(x_t, t); for 0 < eta < 1 it is a posterior of the path, right for mixing
    but not to be compared with other weights or used for credit. It starts from pure noise and its noise must be that
    of the composition itself, so it knows neither guidance nor a deterministic sampler.

    Raises (on use):
        SettingsError: sampling that starts late, or takes steps without fresh noise.
    """

    name: ClassVar[str] = "ito"
    isolated: ClassVar[bool] = True
    passes: ClassVar[float] = 0.0
    follows_path: ClassVar[bool] = True
    schedule: Schedule
    shares: Sequence[LabelShares]

    def start(self) -> Evidence:
        return _PathEvidence(self)


class _PathEvidence(Evidence):
    def __init__(self, weights: Ito):
        self._weights = weights
        self._logits: Tensor | None = None
        self._moved = True

    def __call__(self, x_t: Tensor, t: Tensor, labels: Labels) -> Tensor:
        if self._logits is None:
            self._check_start(t)
            self._logits = label_log_shares(self._weights.shares, labels).to(x_t.device, torch.float64)
        if not self._moved:
            raise _no_noise()
        self._moved = False
        return self._logits

    def moved(self, step: Moved) -> None:
        assert self._logits is not None
        self._moved = True
        if step.std == 0:
            if step.s > 0:
                raise _no_noise()
            return
        distance = (step.x_s[:, None] - step.means).double().square().flatten(2).sum(dim=2)
        # A member whose weight has come down to 0 was not asked where it would have gone: it is out for good.
        self._logits = torch.where(step.took_part, self._logits - distance / (2 * step.std**2), -torch.inf)
        self._logits = self._logits - self._logits.amax(dim=1, keepdim=True)

    def _check_start(self, t: Tensor) -> None:
        log_snr = self._weights.schedule.log_snr(t.double()).max().item()
        if log_snr > LOG_SNR_OF_NOISE:
            raise SettingsError(
                f"ito weights start from pure noise, the first step has a log-SNR of {log_snr:.0f}; start at t = 1, in "
                "diffusers by timestep_spacing='trailing', or choose weights that look at the image"
            )


def _no_noise() -> SettingsError:
    return SettingsError(
        "ito weights read the fresh noise of every step, and this sampler adds none; use ddpm, dpmpp_2m_sde, or ddim "
        "with eta > 0"
    )
