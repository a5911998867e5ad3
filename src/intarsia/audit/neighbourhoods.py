"""Precision, recall, density and coverage: do fakes lie where reals are, and do they lie everywhere reals are?

Around every image of one side lies a ball that reaches to its k-th nearest neighbour on its own side. The figures count
which images of the other side fall into such balls.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.audit.features import check_rows, check_same_width
from intarsia.audit.halves import Halves, Trials

PRECISION_NEIGHBOURS = 3  # Kynkäänniemi et al. 2019, section 3.1
DENSITY_NEIGHBOURS = 5  # Naeem et al. 2020, section 3.3
_LISTED = 64  # neighbours of a row; of so many, more than DENSITY_NEIGHBOURS fall into any random half
_CELLS = 2**24  # distances held at once
_TIES = 1 + 1e-9  # rounding must not decide whether a point on the edge of a ball is inside
_SAME = 1e-12  # of the squared lengths: what rounding leaves of the squared distance of two equal rows


# Kynkäänniemi et al. 2019, eq. 1 and 2.
def precision_recall(fake: Tensor, real: Tensor, *, neighbours: int = PRECISION_NEIGHBOURS) -> tuple[float, float]:
    """Share of fakes (N, d) inside the balls of the reals (M, d), and of reals inside the balls of the fakes.

    Raises:
        InputError: no more rows than `neighbours`, different d, or numbers that are not finite.
    """
    fake, real = _checked(fake, real, neighbours)
    every = _Sides(_all(fake), _all(real))
    precision = _inside(fake, real, every, _radii(real, every.centres, neighbours))
    recall = _inside(real, fake, every.swapped(), _radii(fake, every.points, neighbours))
    return _share(precision.hits > 0, every.points).item(), _share(recall.hits > 0, every.centres).item()


# Naeem et al. 2020, eq. 3 and 4.
def density_coverage(fake: Tensor, real: Tensor, *, neighbours: int = DENSITY_NEIGHBOURS) -> tuple[float, float]:
    """Mean number of real balls around a fake over `neighbours`, and share of real balls that hold a fake.

    Raises:
        InputError: no more rows than `neighbours`, different d, or numbers that are not finite.
    """
    fake, real = _checked(fake, real, neighbours)
    every = _Sides(_all(fake), _all(real))
    found = _inside(fake, real, every, _radii(real, every.centres, neighbours))
    return _share(found.hits, every.points).item() / neighbours, _share(found.held, every.centres).item()


def precision_recall_trials(fake: Tensor, real: Tensor, halves: Halves) -> dict[str, Trials]:
    """Precision and recall, from all rows (n, d) and from halves."""
    near, floor = _columns(fake, real, halves)
    precision, recall = ([], [])
    for first, sides in ((fake, near), (real, floor)):
        around = _radii(real, sides.centres, PRECISION_NEIGHBOURS)
        precision.append(_share(_inside(first, real, sides, around).hits > 0, sides.points))
        around = _radii(first, sides.points, PRECISION_NEIGHBOURS)
        recall.append(_share(_inside(real, first, sides.swapped(), around).hits > 0, sides.centres))
    return {"precision": _trials(*precision), "recall": _trials(*recall)}


def density_coverage_trials(fake: Tensor, real: Tensor, halves: Halves) -> dict[str, Trials]:
    """Density and coverage, from all rows (n, d) and from halves."""
    near, floor = _columns(fake, real, halves)
    density, coverage = ([], [])
    for first, sides in ((fake, near), (real, floor)):
        found = _inside(first, real, sides, _radii(real, sides.centres, DENSITY_NEIGHBOURS))
        density.append(_share(found.hits, sides.points) / DENSITY_NEIGHBOURS)
        coverage.append(_share(found.held, sides.centres))
    return {"density": _trials(*density), "coverage": _trials(*coverage)}


@dataclass(frozen=True, eq=False)
class _Sides:
    """Which points, and which centres of balls, take part: bool (n, K) each, one column per trial."""

    points: Tensor
    centres: Tensor

    def swapped(self) -> _Sides:
        return _Sides(self.centres, self.points)


@dataclass(frozen=True, eq=False)
class _Inside:
    """`hits` (N, K): in how many balls a point lies; `held` (M, K) bool: whether a ball holds a point."""

    hits: Tensor
    held: Tensor


def _columns(fake: Tensor, real: Tensor, halves: Halves) -> tuple[_Sides, _Sides]:
    near = _Sides(torch.cat([_all(fake), halves.fake.mT], 1), torch.cat([_all(real), halves.real.mT], 1))
    return near, _Sides(halves.other.mT, halves.real.mT)


def _all(rows: Tensor) -> Tensor:
    return torch.ones(len(rows), 1, dtype=torch.bool)


def _trials(near: Tensor, floor: Tensor) -> Trials:
    return Trials(near[0].item(), near[1:], floor)


def _share(found: Tensor, members: Tensor) -> Tensor:
    """(K,): mean of `found` (N, K) over the members."""
    return (found * members).sum(0).double() / members.sum(0)


def _inside(points: Tensor, centres: Tensor, sides: _Sides, radii: Tensor) -> _Inside:
    """Compare points (N, d), members `sides.points`, with balls (M, d) of radii (M, K), members `sides.centres`."""
    hits = torch.zeros(sides.points.shape, dtype=torch.int32)
    held = torch.zeros(sides.centres.shape, dtype=torch.bool)
    chosen = [(p.nonzero()[:, 0], c) for p, c in zip(sides.points.mT, sides.centres.mT, strict=True)]
    for rows in torch.arange(len(centres)).split(max(1, _CELLS // len(points))):
        apart = _squared(centres[rows], points)
        for column, (p, c) in enumerate(chosen):
            balls = c[rows].nonzero()[:, 0]
            within = apart[balls][:, p] <= radii[rows[balls], column, None]
            hits[p, column] += within.sum(0, dtype=torch.int32)
            held[rows[balls], column] = within.any(1)
    return _Inside(hits, held)


def _radii(rows: Tensor, members: Tensor, neighbours: int) -> Tensor:
    """Squared distance (n, K) to the k-th nearest of the other members of each column."""
    listed = min(_LISTED, len(rows) - 1)
    radii = torch.empty(members.shape, dtype=rows.dtype)
    for block in torch.arange(len(rows)).split(max(1, _CELLS // len(rows))):
        apart = _squared(rows[block], rows)
        apart[torch.arange(len(block)), block] = torch.inf
        distance, who = apart.topk(listed, largest=False)
        for column, member in enumerate(members.mT):
            place = (member[who].cumsum(1) < neighbours).sum(1, keepdim=True)
            radii[block, column] = _TIES * distance.gather(1, place.clamp_max(listed - 1))[:, 0]
    return radii


def _squared(first: Tensor, second: Tensor) -> Tensor:
    """Squared distances (N, M), 0 between equal rows: a ball around copies of one picture has no radius to spare."""
    lengths = first.square().sum(1)[:, None] + second.square().sum(1)
    apart = lengths.addmm(first, second.mT, alpha=-2)
    return apart.masked_fill_(apart <= lengths.mul_(_SAME), 0)


def _checked(fake: Tensor, real: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    fake, real = check_rows(fake, neighbours + 1), check_rows(real, neighbours + 1)
    check_same_width(fake, real)
    return fake, real
