"""Labelled grey images for the judge of legibility, and what it must learn to refuse.

A composition that fails does not draw noise: it draws something between two digits. So the rejects are letters, noise,
shuffled pieces of digits, and blends of two digits of different classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.data import Source
from intarsia.diffusion import keyed_generator
from intarsia.errors import InputError, SettingsError


@dataclass(frozen=True, eq=False)
class Digits:
    """Images with their classes.

    Args:
        images: (N, 1, S, S) in [-1, 1].
        labels: (N,) int64, places in `classes`.
        classes: names of the classes.

    Raises:
        InputError: shapes that do not fit, or fewer than two classes.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if len(shape) != 4 or shape[1] != 1 or shape[2] != shape[3]:
            raise InputError(f"digits are images of shape {shape}: expected grey squares (N, 1, S, S)")
        if self.labels.shape != shape[:1]:
            raise InputError(
                f"{shape[0]} images, but labels of shape {tuple(self.labels.shape)}: expected one per image"
            )
        if len(self.classes) < 2 or len(set(self.labels.tolist())) < 2:
            raise InputError("images of a single class: a judge needs at least two classes to tell apart")

    @classmethod
    def of(cls, sources: Source | Sequence[Source]) -> Self:
        """The images of labelled sources, in the order of their sample ids, so that it does not matter who owns which.

        Raises:
            InputError: an image has no label, is not a grey square, or all are of one class.
        """
        sources = [sources] if isinstance(sources, Source) else sources
        classes = tuple(sorted({label for source in sources for label in source.labels}))
        order = np.argsort(np.array([id for source in sources for id in source.manifest.ids]), kind="stable")
        images = torch.cat([source.pixels() for source in sources])[order]
        labels = torch.cat([source.label_indices(classes) for source in sources])[order]
        return cls(images, labels, classes)

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class DigitSplit:
    """Three disjoint parts of every source: for the compartments, for the judge, and real images to compare with."""

    train: tuple[Source, ...]
    judge: tuple[Source, ...]
    reference: tuple[Source, ...]


def split_digits(
    sources: Sequence[Source], *, judge: float = 0.25, reference: float = 0.25, seed: int = 0
) -> DigitSplit:
    """Split by a hash of (seed, sample id): an image keeps its part whatever joins or leaves.

    Raises:
        SettingsError: shares that leave nothing to train on.
    """
    if not (judge > 0 and reference > 0 and judge + reference < 1):
        raise SettingsError(f"judge {judge} and reference {reference}: expected shares above 0 that sum to less than 1")
    train, rest = zip(*(source.split(judge + reference, seed=seed) for source in sources), strict=True)
    # The same hash again: of the lower shares, those below `reference` are the reference.
    judged, compared = zip(*(source.split(reference, seed=seed) for source in rest), strict=True)
    return DigitSplit(train, judged, compared)


@dataclass(frozen=True, eq=False)
class Rejects:
    """Images (N, 1, S, S) that are no digit, and how each was made (a key of `REJECT_KINDS`, or "letter")."""

    images: Tensor
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def of_kind(self, kind: str) -> Tensor:
        """The images of one kind."""
        return self.images[torch.tensor([each == kind for each in self.kinds], dtype=torch.bool)]


def make_rejects(digits: Digits, letters: Tensor, *, count: int, seed: int, letter_share: float = 0.3) -> Rejects:
    """`count` rejects: a share of letters (as many as there are, at most), the others equally many of each kind.

    Args:
        digits: what blends and pieces are made of.
        letters: (M, 1, S, S), other symbols in the same style; may be empty.
        count: how many.
        seed: image k of a kind depends on the seed and on what it is made of.
        letter_share: of `count`.

    Raises:
        InputError: letters of another size.
        SettingsError: a count or a share that makes no sense.
    """
    if count < len(REJECT_KINDS) or not 0 <= letter_share < 1:
        raise SettingsError(
            f"count {count}, letter_share {letter_share}: give at least {len(REJECT_KINDS)} and a share in [0, 1)"
        )
    if len(letters) and letters.shape[1:] != digits.images.shape[1:]:
        raise InputError(
            f"letters are {tuple(letters.shape[1:])}, digits {tuple(digits.images.shape[1:])}: draw them at one size"
        )
    drawn = keyed_generator("letters", seed).permutation(len(letters))[: round(letter_share * count)]
    images, kinds = [letters[torch.from_numpy(drawn)]] if len(drawn) else [], ["letter"] * len(drawn)
    rest = count - len(drawn)
    for number, (kind, make) in enumerate(REJECT_KINDS.items()):
        many = rest // len(REJECT_KINDS) + (number < rest % len(REJECT_KINDS))
        if not many:
            continue
        generator = keyed_generator("reject", kind, seed)
        images.append(make(*_pairs(digits, many, generator), generator))
        kinds += [kind] * many
    return Rejects(torch.cat(images), tuple(kinds))


def _pairs(digits: Digits, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Images (count, 1, S, S) and as many partners of other classes."""
    first = torch.from_numpy(generator.integers(0, len(digits), count))
    labels = digits.labels
    ranked = torch.argsort(labels, stable=True)
    sizes = torch.bincount(labels, minlength=len(digits.classes))
    # In the list sorted by class, the images of other classes follow the own class cyclically.
    own = labels[first]
    after = (sizes.cumsum(0))[own]
    others = len(digits) - sizes[own]
    step = (torch.from_numpy(generator.random(count)) * others).long()
    second = ranked[(after + step) % len(digits)]
    return digits.images[first], digits.images[second]


def _dissolve(a: Tensor, b: Tensor, generator: np.random.Generator) -> Tensor:
    share = torch.from_numpy(generator.uniform(0.35, 0.65, (len(a), 1, 1, 1))).float()
    return share * a + (1 - share) * b


def _average(a: Tensor, b: Tensor, generator: np.random.Generator) -> Tensor:
    return (a + b) / 2


def _overlay(a: Tensor, b: Tensor, generator: np.random.Generator) -> Tensor:
    return torch.maximum(a, b)


def _halves(a: Tensor, b: Tensor, generator: np.random.Generator) -> Tensor:
    """Half of one, half of the other: left and right, or top and bottom."""
    side = a.shape[-1]
    across = torch.arange(side) < side // 2
    upright = torch.from_numpy(generator.random((len(a), 1, 1, 1)) < 0.5)
    return torch.where(torch.where(upright, across[None, :], across[:, None]), a, b)


def _shuffled(a: Tensor, b: Tensor, generator: np.random.Generator) -> Tensor:
    """The sixteen pieces of an image in another order."""
    side = a.shape[-1]
    piece = max(1, side // 4)
    tiles = F.unfold(a[..., : piece * (side // piece), : piece * (side // piece)], piece, stride=piece)
    order = torch.from_numpy(generator.random((len(a), 1, tiles.shape[-1]))).argsort(-1)
    whole = piece * (side // piece)
    mixed = F.fold(tiles.gather(-1, order.expand_as(tiles)), (whole, whole), piece, stride=piece)
    return F.pad(mixed, (0, side - whole, 0, side - whole), value=-1.0)


def _noise(a: Tensor, b: Tensor, generator: np.random.Generator) -> Tensor:
    """White noise, soft noise, digits drowned in noise, and plain grey: nothing drawn at all must be refused too."""
    side = a.shape[-1]
    white = torch.from_numpy(generator.standard_normal(tuple(a.shape))).float()
    coarse = torch.from_numpy(generator.standard_normal((len(a), 1, 4, 4))).float()
    soft = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
    # A third of the plain images are black, as an empty picture is.
    plain = (torch.from_numpy(generator.uniform(-2, 1, (len(a), 1, 1, 1))).float()).expand_as(a)
    kind = torch.from_numpy(generator.integers(0, 4, (len(a), 1, 1, 1)))
    return (
        torch.stack([white, 1.5 * soft, 0.25 * (a + 1) + white - 0.5, plain])
        .gather(0, kind.expand_as(a)[None])[0]
        .clamp(-1, 1)
    )


Mix = Callable[[Tensor, Tensor, np.random.Generator], Tensor]

REJECT_KINDS: Mapping[str, Mix] = MappingProxyType(
    {
        "average": _average,
        "dissolve": _dissolve,
        "halves": _halves,
        "noise": _noise,
        "overlay": _overlay,
        "shuffled": _shuffled,
    }
)
