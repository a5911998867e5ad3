"""The Fréchet distance between two sets of features.

"FID" is the name of one such distance, in the Inception network with the reference resizing; every other is called
`FD-<network>`. It is biased upwards at few rows, by an amount that depends on the network and on the images, so it is
only ever compared at equal counts, beside its floor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from intarsia.audit.features import check_rows, check_same_width
from intarsia.audit.halves import Halves, Trials


# Dowson and Landau 1982, eq. 6; Heusel et al. 2017: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).
def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Squared 2-Wasserstein distance of the Gaussians with the moments of features (N, d) and (M, d).

    Covariances are the unbiased ones. What is usually printed as "FID" is this number.

    Raises:
        InputError: fewer than two rows, different d, or numbers that are not finite.
    """
    first, second = check_rows(first), check_rows(second)
    check_same_width(first, second)
    return _distance(first, second)


def frechet_trials(fake: Tensor, real: Tensor, halves: Halves) -> dict[str, Trials]:
    """The distance, from all rows (n, d) and from halves."""
    pairs = zip(halves.fake, halves.real, halves.other, strict=True)
    found = [(_distance(fake[f], real[a]), _distance(real[b], real[a])) for f, a, b in pairs]
    near, floor = torch.tensor(found, dtype=torch.float64).unbind(1)
    return {"fd": Trials(_distance(fake, real), near, floor)}


# With A_i = (X_i - m_i) / sqrt(N_i - 1), C_i = A_i' A_i, and tr (C1 C2)^(1/2) is the nuclear norm of A1 A2'. No
# rounding error is squared, so singular covariances (fewer rows than numbers) cost no digits.
def _distance(first: Tensor, second: Tensor) -> float:
    apart = (first.mean(0) - second.mean(0)).square().sum()
    a, b = _scaled(first), _scaled(second)
    shared = torch.linalg.svdvals(_square(a) @ _square(b).mT).sum()
    return (apart + a.square().sum() + b.square().sum() - 2 * shared).clamp_min(0).item()


def _scaled(rows: Tensor) -> Tensor:
    return (rows - rows.mean(0)) / math.sqrt(len(rows) - 1)


def _square(rows: Tensor) -> Tensor:
    """At most d rows with the same R'R: an orthogonal factor changes no singular value of a product."""
    return torch.linalg.qr(rows, mode="r").R if len(rows) > rows.shape[1] else rows
