"""Do images show what was asked for? Of sources of classes each is looked at alone; captions are judged as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from intarsia.audit import DigitNetwork
from intarsia.composition import Result
from intarsia.data import Manifest, Source
from intarsia.experiments.recipes import merged
from intarsia.experiments.reproduce.jury import Jury, means
from intarsia.experiments.reproduce.world import World, by_class

SOURCES = 2
OWN = "shows own classes"


class Heed(Protocol):
    """The sources of a table, and a judge of whether what is drawn from them is what was asked for."""

    @property
    def sources(self) -> Sequence[Source]: ...

    def real(self) -> dict[str, float]:
        """What real images come to."""
        ...

    def drawn(self, result: Result, alone: Callable[[str], Tensor]) -> dict[str, float]:
        """What a composition comes to; `alone` draws images from the source of a name."""
        ...


def heed_of(world: World) -> Heed:
    """By captions where the world's images are drawn for them, and else by classes."""
    return OfCaptions(world) if world.captioned else OfClasses(world)


@dataclass(frozen=True, eq=False)
class OfClasses:
    """Sources of different classes, asked for nothing: does each draw its own?"""

    world: World

    @cached_property
    def sources(self) -> Sequence[Source]:
        return by_class(self.world.images, SOURCES)

    def real(self) -> dict[str, float]:
        """Nothing: they are what they are."""
        return {}

    def drawn(self, result: Result, alone: Callable[[str], Tensor]) -> dict[str, float]:
        """The share of legible images of each source alone that show one of its classes, where classes can be told."""
        judge = self.world.network
        if not isinstance(judge, DigitNetwork):
            return {}
        shares = []
        for source in self.sources:
            found = judge.judge(alone(source.name))
            own = torch.tensor([label in source.labels for label in judge.classes])
            shares.append((found.accepted & own[found.labels]).double().mean().item())
        return {OWN: sum(shares) / len(shares)}


@dataclass(frozen=True, eq=False)
class OfCaptions:
    """Owners' captioned pictures, in two sources: large ones, as privacy needs, so that several owners share one.

    Their labels are left out. They spell the captions, and which labels a source has is public.
    """

    world: World

    @cached_property
    def sources(self) -> Sequence[Source]:
        owners = [owner.kept for owner in self.world.owners]
        half = (len(owners) + 1) // SOURCES
        return [_unlabelled(merged(f"owners-{k}", some)) for k, some in enumerate((owners[:half], owners[half:]))]

    @cached_property
    def jury(self) -> Jury:
        return Jury.of(self.world)

    def real(self) -> dict[str, float]:
        """Points of held-out pictures for their own captions: how often the judges are right."""
        return means(self.jury.of_real(self.world))

    def drawn(self, result: Result, alone: Callable[[str], Tensor]) -> dict[str, float]:
        """Points of the composition for the captions that it was asked for."""
        return means(self.jury.of_drawn(result))


def _unlabelled(source: Source) -> Source:
    samples = tuple(replace(sample, label=None) for sample in source.manifest)
    return replace(source, manifest=Manifest(samples))
