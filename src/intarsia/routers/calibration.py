"""Calibration of a log-ratio on held-out samples, per bin of time: h becomes a(t) h + b(t) (science.md section 3).

A head is surest where it was trained, and overconfident elsewhere. What is fitted here is the ratio of one source to
the core alone, so it stays a part of that source, and is forgotten with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 30


def identity(bins: int) -> Tensor:
    """The calibration that changes nothing: scale 1 and shift 0 in every bin, (bins, 2) float32."""
    return torch.tensor([[1.0, 0.0]]).repeat(bins, 1)


def bin_of(t: Tensor, bins: int) -> Tensor:
    """The bin of each time, of equal widths in [0, 1]: (B,) int64."""
    return (t * bins).long().clamp(0, bins - 1)


# Platt 1999, both sides weighted alike, so that the log-ratio and not the log-odds of the held-out samples is fitted
def fit_bin(h_source: Tensor, h_core: Tensor, strength: float) -> Tensor:
    """Scale and shift (2,) float64 for log-ratios of held-out source and core samples in one bin, by Newton's method.

    Minimises the mean loss of both sides plus `strength` / 2 times the squared distance to (1, 0), which keeps few
    samples from saying much.
    """
    x = torch.stack([torch.cat([h_source, h_core]), torch.ones(len(h_source) + len(h_core))], dim=1).double()
    y = torch.cat([torch.ones(len(h_source)), torch.zeros(len(h_core))]).double()
    weight = torch.where(y > 0, 0.5 / len(h_source), 0.5 / len(h_core))
    start = theta = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for _ in range(_ROUNDS):
        p = (x @ theta).sigmoid()
        gradient = x.T @ (weight * (p - y)) + strength * (theta - start)
        curvature = (x * (weight * p * (1 - p))[:, None]).T @ x + strength * torch.eye(2, dtype=torch.float64)
        step = torch.linalg.solve(curvature, gradient)
        theta = theta - step * min(1.0, 1.0 / step.norm().item()) if step.norm() > 0 else theta
    return torch.stack([theta[0].clamp(min=0), theta[1]])


def calibrated(h: Tensor, t: Tensor, calibration: Tensor) -> Tensor:
    """a(t) h + b(t), linear between the middles of the bins.

    Args:
        h: (B, n) log-ratios.
        t: (B,).
        calibration: (n, bins, 2).
    Returns:
        (B, n).
    """
    bins = calibration.shape[1]
    place = (t * bins - 0.5).clamp(0, bins - 1)
    low = place.floor().long().clamp(max=max(0, bins - 2))
    high = (low + 1).clamp(max=bins - 1)
    part = (place - low)[:, None, None].to(h.dtype)
    per_image = torch.lerp(calibration[:, low].transpose(0, 1), calibration[:, high].transpose(0, 1), part)
    return per_image[..., 0] * h + per_image[..., 1]
