"""Weights from the members' own denoising errors: whose model removes further noise best (`diffusion_classifier`).

Noise x_t further, to z = sqrt(gamma) x_t + eps in effect, let every member take that noise off again, and compare the
squared errors over all signal-to-noise ratios gamma. This is how likely x_t is under each member, for any x_t, from
nothing but the members: no router parts, and no path on which x_t was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from intarsia.checks import check_seed, check_whole
from intarsia.composition.member import Conditions, Labels, Member, shares_of
from intarsia.composition.weights import Evidence
from intarsia.diffusion import Schedule, expand, keyed_normal
from intarsia.routers import label_log_shares

NOISIEST = -10.0  # log-SNR, as in time_grid: the picture has not begun there
LARGEST = 10.0  # log gamma: errors are too small to tell members apart
SETTLED = 100.0  # gamma sigma^2: from there on the noise of x_t itself is all that errors are made of


# Li et al. 2023 (diffusion classifier) with the weighting of I-MMSE (Guo et al. 2005, Kong et al. 2023)
@dataclass(frozen=True)
class DiffusionClassifier:
    """log p_t^i(x_t) of every member up to a shared number, by 2 `levels` of its network calls.

    All members see the same noise, keyed by (seed, level, time), each with its negative; so most of its chance cancels
    in the differences, and an image does not depend on its batch. At another time it is other noise: what one misses is
    missed for all images alike, and would lead all of them the same way at every step.

    Raises:
        SettingsError: `levels` below 1, or a negative seed.
    """

    name: ClassVar[str] = "diffusion_classifier"
    isolated: ClassVar[bool] = True
    follows_path: ClassVar[bool] = False
    members: Sequence[Member]
    schedule: Schedule
    levels: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("levels", self.levels)
        check_seed(self.seed)

    @property
    def passes(self) -> float:
        """Network calls per evaluation."""
        return 2.0 * self.levels * len(self.members)

    def start(self) -> Evidence:
        return _ClassifierEvidence(self)

    # I-MMSE, pointwise: log p(x) = const - 1/2 integral of E ||x - E[x | z]||^2 over gamma; here in log gamma
    @torch.no_grad()
    def log_density(self, x_t: Tensor, t: Tensor, asked: Conditions) -> Tensor:
        """log p_t^i(x_t | y) for every member, up to a number that they share.

        Args:
            x_t: (B, ...), of any origin.
            t: (B,); at t = 0 x_t is clean. Where it is all noise the answer is 0 for everybody.
            asked: one label, caption or None per image.
        Returns:
            (B, n) float64.
        """
        first, last = self._range(t)
        width = (last - first).clamp(min=0) / self.levels
        total = torch.zeros(len(x_t), len(self.members), dtype=torch.float64)
        if not bool((width > 0).any()):
            return total
        for level in range(self.levels):
            gamma = (first + (level + 0.5) * width).exp()
            noise = self._noise(x_t, t, level)
            errors = (self._errors(x_t, t, asked, gamma, noise) + self._errors(x_t, t, asked, gamma, -noise)) / 2
            total -= 0.5 * (width * gamma)[:, None] * errors
        return total.where(width[:, None] > 0, 0.0)

    def _range(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The log gamma (B,) between which members can be told apart, from the process's own noisiest time."""
        end = self.schedule.log_snr(torch.ones((), dtype=torch.float64)).clamp(min=NOISIEST)
        alpha, sigma = self.schedule.alpha(t.double()), self.schedule.sigma(t.double())
        # 1 / gamma = alpha^2 / SNR - sigma^2: what a time of that SNR adds to the noise of x_t.
        first = -(alpha**2 * (-end).exp() - sigma**2).clamp(min=0).log()
        last = (SETTLED / sigma**2).log().clamp(max=LARGEST)
        return first, last

    def _noise(self, x_t: Tensor, t: Tensor, level: int) -> Tensor:
        """(B, ...), one noise per time."""
        times, rows = t.unique(return_inverse=True)
        key = ("diffusion classifier", self.seed, level)
        return torch.stack([keyed_normal(x_t.shape[1:], *key, time.hex()) for time in times.tolist()])[rows].to(x_t)

    def _errors(self, x_t: Tensor, t: Tensor, asked: Conditions, gamma: Tensor, noise: Tensor) -> Tensor:
        """||x_t - E_i[x_t | z]||^2 for x_t noised to `gamma` (B,) with `noise` (B, ...): (B, n) float64."""
        alpha, sigma = self.schedule.alpha(t.double()), self.schedule.sigma(t.double())
        later = self.schedule.time(2 * alpha.log() - (sigma**2 + 1 / gamma).log())
        alpha_later, sigma_later = self.schedule.alpha(later), self.schedule.sigma(later)
        shrink = alpha_later / alpha
        added = (sigma_later**2 - (shrink * sigma) ** 2).clamp(min=0).sqrt()
        z = expand(shrink, x_t) * x_t + expand(added, x_t) * noise
        # As in DDPM's posterior q(x_t | z, x0): E[x_t | z] = a z + b E[x0 | z].
        a = shrink * sigma**2 / sigma_later**2
        b = alpha - a * alpha_later
        errors = []
        for member in self.members:
            x0_hat = member.x0_hat(z, later.to(t.dtype), asked)
            wrong = x_t - expand(a, x_t) * z - expand(b, x_t) * x0_hat
            errors.append(wrong.double().square().flatten(1).sum(dim=1))
        return torch.stack(errors, dim=1)


class _ClassifierEvidence(Evidence):
    """The members are asked for what the images are asked for, captions and public labels included."""

    def __init__(self, weights: DiffusionClassifier):
        self._weights, self._shares = weights, shares_of(weights.members)
        self._asked: Conditions | None = None

    def told(self, asked: Conditions) -> None:
        self._asked = asked

    def __call__(self, x_t: Tensor, t: Tensor, labels: Labels) -> Tensor:
        asked = labels if self._asked is None else self._asked
        return self._weights.log_density(x_t, t, asked) + label_log_shares(self._shares, labels)
