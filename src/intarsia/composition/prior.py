"""The shares that members have before any image is looked at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from intarsia.composition.member import Member
from intarsia.errors import SettingsError


def default_prior(members: Sequence[Member]) -> Tensor:
    """Shares proportional to the members' sizes (science.md section 1): (n,) float64."""
    counts = torch.tensor([member.count for member in members], dtype=torch.float64)
    return counts / counts.sum()


def check_prior(prior: Tensor, names: Sequence[str]) -> None:
    """Raises SettingsError unless `prior` has one positive share for each name and sums to 1."""
    if prior.shape != (len(names),) or not bool((prior > 0).all()) or abs(prior.sum().item() - 1) > 1e-6:
        raise SettingsError(
            f"prior {[round(p, 4) for p in prior.flatten().tolist()]} for {', '.join(names)}: "
            "expected one positive share for each, summing to 1"
        )
