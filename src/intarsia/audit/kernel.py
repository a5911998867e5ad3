"""The kernel distance (KID) between two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.audit.features import check_rows, check_same_width
from intarsia.audit.halves import Halves, Trials

_BLOCK = 1000  # rows per side that are compared all with all


# Binkowski et al. 2018, section 4: the unbiased MMD^2 with k(x, y) = (x.y / d + 1)^3. Averaged over disjoint blocks
# (Zaremba et al. 2013), it stays unbiased, uses every row, and its cost is linear in their number.
def kernel_distance(first: Tensor, second: Tensor, *, block: int = _BLOCK) -> float:
    """KID between features (N, d) and (M, d): unbiased, so it may be slightly negative between equal distributions.

    Args:
        first, second: features; in blocks, rows are taken in the order given.
        block: rows per side that are compared all with all, where both sides have at least twice as many.

    Raises:
        InputError: fewer than two rows, different d, or numbers that are not finite.
    """
    first, second = check_rows(first), check_rows(second)
    check_same_width(first, second)
    blocks = max(1, min(len(first), len(second)) // block)
    pairs = zip(first.tensor_split(blocks), second.tensor_split(blocks), strict=True)
    return torch.stack([_mmd(a, _all(a), b, _all(b)) for a, b in pairs]).mean().item()


def kernel_trials(fake: Tensor, real: Tensor, halves: Halves) -> dict[str, Trials]:
    """The distance, from all rows (n, d) and from halves, of which every block has its own share."""
    blocks = max(1, len(fake) // _BLOCK)
    sides = (fake, real, halves.fake.mT.double(), halves.real.mT.double(), halves.other.mT.double())
    found = [_block_trials(*parts) for parts in zip(*(side.tensor_split(blocks) for side in sides), strict=True)]
    mean = torch.stack(found).mean(0)
    count = len(halves.fake)
    return {"kid": Trials(mean[0].item(), mean[1 : 1 + count], mean[1 + count :])}


def _block_trials(fake: Tensor, real: Tensor, f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    near = _mmd(fake, torch.cat([_all(fake), f], 1), real, torch.cat([_all(real), a], 1))
    return torch.cat([near, _mmd(real, b, real, a)])


def _all(rows: Tensor) -> Tensor:
    return torch.ones(len(rows), 1, dtype=torch.float64)


def _mmd(first: Tensor, u: Tensor, second: Tensor, v: Tensor) -> Tensor:
    """Unbiased MMD^2 (K,), one per column of u (N, K) and v (M, K): which rows are in, 0 or 1."""
    across = (u * (_kernel(first, second) @ v)).sum(0) / (u.sum(0) * v.sum(0))
    return _within(first, u) + _within(second, v) - 2 * across


def _within(rows: Tensor, u: Tensor) -> Tensor:
    kernel = _kernel(rows, rows).fill_diagonal_(0)
    count = u.sum(0)
    return (u * (kernel @ u)).sum(0) / (count * (count - 1))


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    return (first @ second.mT / first.shape[1] + 1) ** 3
