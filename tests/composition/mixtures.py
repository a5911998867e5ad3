"""Sources whose models are known: Gaussian mixtures in the plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from intarsia.diffusion import Cosine, GaussianMixture, MixtureDenoiser, Schedule

SCHEDULE = Cosine()


@dataclass
class ExactMember:
    """A source whose model is known: a Gaussian mixture. Counts its calls, and shifts by 1 when it sees a label."""

    name: str
    mixture: GaussianMixture
    count: int = 100
    classes: Mapping[str, int] = field(default_factory=dict)
    schedule: Schedule = SCHEDULE
    deaf: bool = False
    rows_seen: list[int] = field(default_factory=list)
    hears: Callable[[object], None] = lambda labels: None

    def conditions(self, label: str) -> bool:
        return not self.deaf

    def x0_hat(self, x_t: Tensor, t: Tensor, labels: Sequence[str | None]) -> Tensor:
        self.rows_seen.append(len(x_t))
        self.hears(tuple(labels))
        shift = torch.tensor([label is not None for label in labels], dtype=x_t.dtype)
        return MixtureDenoiser(self.schedule, self.mixture.to(x_t.dtype))(x_t, t) + shift[:, None]


def mixture(*means: float, std: float = 0.2) -> GaussianMixture:
    centre = torch.tensor(means, dtype=torch.float64)[:, None].repeat(1, 2)
    covariance = (std**2 * torch.eye(2, dtype=torch.float64)).repeat(len(means), 1, 1)
    return GaussianMixture.from_moments(
        torch.full((len(means),), 1 / len(means), dtype=torch.float64), centre, covariance
    )


def members(counts: Sequence[int] = (100, 100), schedule: Schedule = SCHEDULE) -> list[ExactMember]:
    return [
        ExactMember("left", mixture(-2.0, 0.0), counts[0], schedule=schedule),
        ExactMember("right", mixture(0.5, 2.0), counts[1], schedule=schedule),
    ]
