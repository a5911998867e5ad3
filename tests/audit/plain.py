"""Toy features, and the figures as loops over pairs, as far from the real code as possible."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from intarsia.diffusion import keyed_normal


def features(count: int, dim: int, *key: int | str) -> Tensor:
    return keyed_normal((count, dim), "features", *key, dtype=torch.float64)


def kernel(first: Tensor, second: Tensor) -> float:
    """The unbiased kernel distance of Binkowski et al. 2018."""

    def mean(a: np.ndarray, b: np.ndarray, *, same: bool) -> float:
        pairs = [(x, y) for i, x in enumerate(a) for j, y in enumerate(b) if not (same and i == j)]
        return sum((x @ y / len(x) + 1) ** 3 for x, y in pairs) / len(pairs)

    a, b = first.numpy(), second.numpy()
    return mean(a, a, same=True) + mean(b, b, same=True) - 2 * mean(a, b, same=False)


def radius(rows: np.ndarray, row: int, neighbours: int) -> float:
    return sorted(float(np.linalg.norm(rows[row] - other)) for k, other in enumerate(rows) if k != row)[neighbours - 1]


def balls(points: Tensor, centres: Tensor, neighbours: int) -> np.ndarray:
    """bool (N, M): point j lies in the ball of centre i."""
    p, c = points.numpy(), centres.numpy()
    radii = [radius(c, row, neighbours) for row in range(len(c))]
    return np.array([[float(np.linalg.norm(x - y)) <= r for y, r in zip(c, radii, strict=True)] for x in p])


def neighbourhoods(fake: Tensor, real: Tensor) -> dict[str, float]:
    """Kynkäänniemi et al. 2019 with k = 3, Naeem et al. 2020 with k = 5."""
    dense = balls(fake, real, 5)
    return {
        "precision": balls(fake, real, 3).any(1).mean(),
        "recall": balls(real, fake, 3).any(1).mean(),
        "density": dense.sum() / (5 * len(fake)),
        "coverage": dense.any(0).mean(),
    }
