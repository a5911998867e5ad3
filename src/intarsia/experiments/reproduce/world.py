"""What a table is made in: a backbone, images to share out among sources, and real images to be compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from intarsia.audit import (
    Digits,
    DigitSettings,
    FeatureNetwork,
    fit_digit_network,
    frechet_distance,
    kernel_distance,
    make_rejects,
    precision_recall,
    split_digits,
)
from intarsia.data import Manifest, Sample, Source
from intarsia.data.collections.digits import digits
from intarsia.data.collections.letters import letters
from intarsia.diffusion import keyed_generator


@dataclass(frozen=True, eq=False)
class World:
    """Where compartments are compared.

    Args:
        name: said in tables.
        backbone: a package, by name or folder.
        images: all training images, labelled; a study shares them out.
        reference: real images that nothing was trained on.
        network: whose features are compared.
    """

    name: str
    backbone: str | Path
    images: Source
    reference: Source
    network: FeatureNetwork

    def yardstick(self, labels: Sequence[str] | None = None) -> Yardstick:
        """Distances to the reference images, of these labels only if they are given."""
        sources = [self.reference, self.images]
        if labels is not None:
            sources = [source.select(lambda sample: sample.label in labels) for source in sources]
        reference, training = (self.network.features(source.pixels()) for source in sources)
        return Yardstick(self.network, reference, training)


@dataclass(frozen=True, eq=False)
class Yardstick:
    """Distances to real images in one feature network; `training` are the features of those that were trained on."""

    network: FeatureNetwork
    reference: Tensor
    training: Tensor

    @property
    def distance(self) -> str:
        """The name of the figure that tables are ordered by."""
        return f"FD-{self.network.name}"

    def measure(self, images: Tensor) -> dict[str, float]:
        """Distances, precision and recall of images (N, C, H, W)."""
        return self._figures(self.network.features(images))

    def floor(self) -> dict[str, float]:
        """The same of real training images: what a perfect copyist would reach."""
        return self._figures(self.training)

    def _figures(self, found: Tensor) -> dict[str, float]:
        precision, recall = precision_recall(found, self.reference)
        return {
            self.distance: frechet_distance(found, self.reference),
            "KID": kernel_distance(found, self.reference),
            "precision": precision,
            "recall": recall,
        }


def digits_world() -> World:
    """Handwritten digits of 8 px on the backbone that saw letters; features of a network that reads digits."""
    split = split_digits(digits())
    mine = Digits.of(split.judge)
    rejects = make_rejects(mine, letters(6000, size=8, seed=1000).pixels(), count=20_000, seed=1)
    judge = fit_digit_network(mine, rejects, DigitSettings())
    return World(
        name="digits",
        backbone="uvit-tiny-8",
        images=joined("all", split.train),
        reference=joined("reference", split.reference),
        network=judge,
    )


def joined(name: str, sources: Sequence[Source]) -> Source:
    """The images of several sources as one, under the terms of the first."""
    samples = [sample for source in sources for sample in source.manifest]
    images = torch.cat([torch.from_numpy(source.images.copy()) for source in sources]).numpy()
    order = sorted(range(len(samples)), key=lambda k: samples[k].id)
    return replace(sources[0], name=name, manifest=Manifest(tuple(samples)), images=images[order])


def by_class(world: World, count: int) -> list[Source]:
    """`count` sources, each with a contiguous share of the labels."""
    labels = world.images.labels
    group = {label: place * count // len(labels) for place, label in enumerate(labels)}
    return _shared_out(world.images, "class", count, lambda sample: group[sample.label or ""])


def at_random(world: World, count: int, *, seed: int) -> list[Source]:
    """`count` sources of equally many images each, at random."""
    order = keyed_generator("splits", seed, count).permutation(len(world.images))
    part = {world.images.manifest.ids[row]: place % count for place, row in enumerate(order)}
    return _shared_out(world.images, "random", count, lambda sample: part[sample.id])


def _shared_out(images: Source, name: str, count: int, part: Callable[[Sample], int]) -> list[Source]:
    def of(k: int) -> Source:
        return images.select(lambda sample: part(sample) == k, name=f"{name}-{k}")

    return [of(k) for k in range(count)]
