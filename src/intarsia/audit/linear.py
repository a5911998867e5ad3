"""Multinomial logistic regression on features: what tells owners, or the things that pictures show, apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def scaled(found: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Features (N, d) in deviations `scale` from `centre`, both (d,)."""
    # Far outliers would rule the linear score; three deviations say as much.
    return ((found - centre) / scale).clamp(-3, 3)


def logits(x: Tensor, params: Tensor) -> Tensor:
    """(N, n) for x (N, d) and params (d + 1, n), whose last row is the bias."""
    return x @ params[:-1] + params[-1]


def best_ridge(x: Tensor, place: Tensor, ridges: Sequence[float], *, rounds: int) -> float:
    """The weight decay that predicts the classes (N,) of a held-out fifth of x (N, d) best."""
    # Every fifth row: sources are in the order of their hashes, so this is a random fifth of each class.
    held = torch.arange(len(x)) % 5 == 0
    classes = int(place.max()) + 1

    def loss(ridge: float) -> float:
        params = fit_linear(x[~held], place[~held], classes, ridge=ridge, rounds=rounds)
        return F.cross_entropy(logits(x[held], params), place[held]).item()

    return min(ridges, key=loss)


def fit_linear(x: Tensor, place: Tensor, classes: int, *, ridge: float, rounds: int) -> Tensor:
    """Params (d + 1, classes) for x (N, d) of the classes `place` (N,), every class weighing alike."""
    params = torch.zeros(x.shape[1] + 1, classes, dtype=x.dtype, requires_grad=True)
    weight = (len(place) / (classes * torch.bincount(place, minlength=classes).clamp_min(1))).to(x.dtype)
    solver = torch.optim.LBFGS([params], max_iter=rounds, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        fit = F.cross_entropy(logits(x, params), place, weight=weight)
        total = fit + ridge * params[:-1].square().sum() / 2
        total.backward()
        return total

    solver.step(closure)
    found = params.detach()
    assert found.isfinite().all(), "a convex fit does not diverge"
    return found
