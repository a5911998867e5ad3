"""Features: what a network sees in images, and under whose name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from intarsia.data import to_float, to_uint8
from intarsia.data.images import Pixels
from intarsia.errors import IncompatibleError, InputError, SettingsError

_FEWEST = 2  # rows; a covariance and an unbiased kernel mean need a second one
_AT_ONCE = 512  # images between two reports of progress

OnProgress = Callable[[int, int], None]
"""Told how many are done, out of how many."""

Images = Tensor | Pixels
"""uint8 (N, H, W, C), as stored, or float (N, C, H, W) in [-1, 1], as drawn; C = 1 or 3."""


class FeatureNetwork(Protocol):
    """A fixed network. A distance in its features bears its name."""

    @property
    def name(self) -> str:
        """What distances are called by."""
        ...

    @property
    def digest(self) -> str:
        """sha256 of its parameters; features of two digests are never compared."""
        ...

    @property
    def image_size(self) -> int:
        """Pixels a side that it sees, after its own resizing."""
        ...

    def features(self, images: Images, /) -> Tensor:
        """float (N, d); row k depends on image k alone.

        Raises:
            InputError: images that it does not read.
        """
        ...


@dataclass(frozen=True, eq=False)
class Features:
    """Features of one set of images.

    Args:
        rows: (N, d), kept as float64.
        network, digest, image_size: of the network that made them.

    Raises:
        InputError: fewer than two rows, another rank, or numbers that are not finite.
        SettingsError: no name for the network.
    """

    rows: Tensor
    network: str
    digest: str = ""
    image_size: int = 0

    def __post_init__(self) -> None:
        if not self.network:
            raise SettingsError("features without the name of their network: pass network='digitnet' or such")
        object.__setattr__(self, "rows", check_rows(self.rows))

    @classmethod
    def of(cls, images: Images, network: FeatureNetwork, *, on_progress: OnProgress | None = None) -> Features:
        """What `network` sees in `images`; `on_progress` is told how many of them it has seen.

        Raises:
            InputError: images that the network does not read, or fewer than two.
        """
        rows = []
        for start in range(0, len(images), _AT_ONCE):
            rows.append(network.features(images[start : start + _AT_ONCE]))
            if on_progress:
                on_progress(min(start + _AT_ONCE, len(images)), len(images))
        found = torch.cat(rows) if rows else torch.empty(0, 0)
        return cls(found, network.name, network.digest, network.image_size)

    def __len__(self) -> int:
        return len(self.rows)

    def check_comparable(self, other: Features) -> None:
        """Features mean something beside features of the same network only.

        Raises:
            IncompatibleError: names the field that differs.
            InputError: rows of another width.
        """
        for field in ("network", "digest", "image_size"):
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine != theirs:
                raise IncompatibleError(f"features differ in {field}: {mine!r} and {theirs!r}; compare those of one")
        check_same_width(self.rows, other.rows)


def as_drawn(images: Images) -> Tensor:
    """float32 (N, C, H, W) in [-1, 1].

    Raises:
        InputError: another type or rank.
    """
    return to_float(images) if isinstance(images, np.ndarray) else images.float()


def as_saved(images: Images) -> Pixels:
    """uint8 (N, H, W, C), C = 1 or 3: an image is judged as it would be saved, wherever it comes from.

    Raises:
        InputError: another shape, or values that are not finite.
    """
    pixels = images if isinstance(images, np.ndarray) else to_uint8(images)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or 0 in pixels.shape:
        raise InputError(f"found {pixels.dtype} images of shape {pixels.shape}: expected some, uint8 (N, H, W, 1 or 3)")
    return pixels


def check_rows(features: Tensor, fewest: int = _FEWEST) -> Tensor:
    """Features as float64.

    Raises:
        InputError: another rank, fewer rows than `fewest`, or numbers that are not finite.
    """
    if features.ndim != 2 or len(features) < fewest:
        raise InputError(f"features have shape {tuple(features.shape)}: expected (N, d) with at least {fewest} rows")
    if not features.isfinite().all():
        raise InputError("features hold numbers that are not finite: check the images or the network they come from")
    return features.detach().double()


def check_same_width(first: Tensor, second: Tensor) -> None:
    """Refuse rows of two networks.

    Raises:
        InputError: they have different d.
    """
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"features of {first.shape[1]} and of {second.shape[1]} numbers: compare features of one network only"
        )
