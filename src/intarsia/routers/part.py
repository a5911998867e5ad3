"""What the parts of all routers have in common: the samples they are fitted on, and how they are stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from intarsia.errors import CorruptError, InputError


class RouterPart(Protocol):
    """One source's part of the weights: named tensors for a safetensors file, and a JSON-able record."""

    def tensors(self) -> dict[str, Tensor]: ...

    def settings(self) -> dict[str, Any]: ...


@dataclass(frozen=True, eq=False)
class SampleSet:
    """The samples of one source, brought into the order of their ids: whatever is fitted to them cannot know another.

    Args:
        latents: (N, *latent_shape), finite.
        ids: N distinct sample ids.
        labels: N class names, None where a sample has none; all None when left out.

    Raises:
        InputError: no samples, lengths that differ, an id that occurs twice, or latents that are not finite.
    """

    latents: Tensor
    ids: Sequence[str]
    labels: Sequence[str | None] = ()

    def __post_init__(self) -> None:
        labels = list(self.labels) or [None] * len(self.ids)
        lengths = (len(self.latents), len(self.ids), len(labels))
        if not lengths[0] or len(set(lengths)) > 1:
            raise InputError(
                "{} latents, {} ids and {} labels: expected as many of each, at least one".format(*lengths)
            )
        if len(set(self.ids)) < len(self.ids):
            raise InputError(f"{len(self.ids)} samples have {len(set(self.ids))} distinct ids: give every sample once")
        if not self.latents.isfinite().all():
            raise InputError(
                "latents hold numbers that are not finite: check the images or the autoencoder they come from"
            )
        order = sorted(range(len(self.ids)), key=lambda row: self.ids[row])
        object.__setattr__(self, "latents", self.latents.detach()[order])
        object.__setattr__(self, "ids", tuple(self.ids[row] for row in order))
        object.__setattr__(self, "labels", tuple(labels[row] for row in order))

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, keep: Tensor) -> SampleSet:
        """The samples where `keep` (N,) is true; at least one."""
        rows = keep.nonzero()[:, 0].tolist()
        return SampleSet(self.latents[keep], [self.ids[row] for row in rows], [self.labels[row] for row in rows])

    def check_shape(self, latent_shape: Sequence[int]) -> None:
        """Refuse samples of another latent space.

        Raises:
            InputError: the latents are not (N, *latent_shape).
        """
        if tuple(self.latents.shape[1:]) != tuple(latent_shape):
            raise InputError(
                f"latents are {tuple(self.latents.shape[1:])}, expected {tuple(latent_shape)}: encode them with the "
                "backbone of this project"
            )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run on one thread: sums split over threads round differently, and a fit must always give the same bytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def stored(tensors: Mapping[str, Tensor], names: Sequence[str], what: str) -> list[Tensor]:
    """The tensors of these names, in this order.

    Raises:
        CorruptError: one is missing.
    """
    if missing := [name for name in names if name not in tensors]:
        raise CorruptError(f"{what} lacks {', '.join(missing)}: restore its file or fit it again")
    return [tensors[name] for name in names]
