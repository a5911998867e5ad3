"""What a table is made in: a backbone, images to share out among sources, and real images to be compared with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from intarsia.audit import Alignment, FeatureNetwork, frechet_distance, kernel_distance, precision_recall
from intarsia.audit.clip import Clip
from intarsia.backbone import Backbone
from intarsia.data import Sample, Source
from intarsia.diffusion import keyed_generator
from intarsia.errors import InputError
from intarsia.vault.package import Core, check_package, find_package, read_core

_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Owner:
    """An owner's images: `kept` may be trained on, `held` holds concepts that nothing was trained on."""

    kept: Source
    held: Source

    @property
    def name(self) -> str:
        return self.kept.name


@dataclass(frozen=True, eq=False)
class World:
    """Where compartments are compared.

    Args:
        name: said in tables.
        package: of the backbone, by name or folder.
        images: all training images; a study shares them out.
        reference: real images that nothing was trained on.
        network: whose features are compared.
        owners: who gave the images, where they have owners.
        captioned: whether images are drawn for the labels of the reference images, or for none.
        attributes: of what captions name, such as its category: by attribute, the value for each caption.
        aligners: more judges of images against the captions they are drawn for than those by attributes.
        sight: what the method `clip` sees by.
    """

    name: str
    package: str | Path
    images: Source
    reference: Source
    network: FeatureNetwork
    owners: tuple[Owner, ...] = ()
    captioned: bool = False
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    aligners: tuple[Alignment, ...] = ()
    sight: Clip | None = None

    def settings(self) -> dict[str, Any]:
        """What of the world the figures depend on, JSON-able; no places on this machine."""
        settings = {
            "name": self.name,
            "backbone": f"{Path(self.package).name} {self.backbone.digest[:16]}",
            "images": f"{len(self.images)}, root {self.images.manifest.root[:16]}",
            "reference": f"{len(self.reference)}, root {self.reference.manifest.root[:16]}",
            "network": self.network.name,
        }
        judges = [f"{each.name} {each.digest[:16]}" for each in self.aligners]
        judged = {"aligners": judges} if judges else {}
        return settings | judged | ({"sight": self.sight.digest[:16]} if self.sight else {})

    @property
    def distance(self) -> str:
        """The name of the figure that tables are ordered by."""
        return f"FD-{self.network.name}"

    @cached_property
    def backbone(self) -> Backbone:
        return check_package(find_package(self.package))

    @cached_property
    def core(self) -> Core:
        return read_core(find_package(self.package))

    def yardstick(self, labels: Collection[str] | None = None) -> Yardstick:
        """Distances to the reference images, of these labels only if they are given."""
        return Yardstick(self, labels)

    def asked(self, count: int, known: Collection[str]) -> list[str | None] | None:
        """The labels of `count` drawings: the known ones of the reference images in random order, again and again."""
        if not self.captioned:
            return None
        labels = self._known(known)
        order = keyed_generator("labels", self.name).permutation(len(labels))
        return [labels[order[k % len(order)]] for k in range(count)]

    def can_ask(self, labels: Collection[str]) -> bool:
        """Whether a source of these labels can draw any of what is asked for."""
        return not self.captioned or bool(self._known({*labels, *self.backbone.labels}))

    def caption(self, sample: Sample) -> str | None:
        """What a picture is drawn for: its caption where the backbone reads text by itself, and else its label."""
        return sample.label if self.backbone.text is None else sample.text

    def _known(self, labels: Collection[str]) -> list[str | None]:
        captions = [self.caption(sample) for sample in self.reference.manifest]
        return [each for each in captions if each in labels or (each and self.backbone.text)]

    @cached_property
    def reference_features(self) -> Tensor:
        """float (N, d), in manifest order."""
        return _features(self.network, self.reference)

    @cached_property
    def training_features(self) -> Tensor:
        """The same of the training images."""
        return _features(self.network, self.images)


@dataclass(frozen=True, eq=False)
class Yardstick:
    """Distances to a world's reference images, of some labels only if they are given."""

    world: World
    labels: Collection[str] | None

    def measure(self, images: Tensor) -> dict[str, float]:
        """Distances, precision and recall of images (N, C, H, W)."""
        return self._figures(self.world.network.features(images))

    def floor(self, count: int) -> dict[str, float]:
        """The same of `count` real training images, or all if they are fewer: what a perfect copyist would reach."""
        real = self._chosen(self.world.images, self.world.training_features)
        # A distance falls with the number of images, so the floor is that of sets as large as those it stands beside.
        order = keyed_generator("floor", self.world.name).permutation(len(real))
        return self._figures(real[torch.from_numpy(order[:count])])

    def _figures(self, found: Tensor) -> dict[str, float]:
        reference = self._chosen(self.world.reference, self.world.reference_features)
        precision, recall = precision_recall(found, reference)
        return {
            self.world.distance: frechet_distance(found, reference),
            "KID": kernel_distance(found, reference),
            "precision": precision,
            "recall": recall,
        }

    def _chosen(self, source: Source, features: Tensor) -> Tensor:
        if self.labels is None:
            return features
        return features[torch.tensor([sample.label in self.labels for sample in source.manifest])]


def _features(network: FeatureNetwork, source: Source) -> Tensor:
    """Of all images of a source, of which few at a time are unpacked."""
    blocks = torch.arange(len(source)).split(_BLOCK)
    return torch.cat([network.features(source.select_pixels(rows)) for rows in blocks])


def by_class(images: Source, count: int) -> list[Source]:
    """`count` sources, each with a contiguous share of the labels.

    Raises:
        InputError: fewer labels than that.
    """
    check_classes(images, count)
    labels = images.labels
    group = {label: place * count // len(labels) for place, label in enumerate(labels)}
    return shared_out(images, "class", count, lambda sample: group[sample.label or ""])


def check_classes(images: Source, count: int) -> None:
    """Refuse to share out fewer labels than there are to be sources.

    Raises:
        InputError: there are fewer.
    """
    if len(images.labels) < count:
        raise InputError(f"{len(images.labels)} classes cannot be shared out among {count} sources; take fewer sources")


def at_random(images: Source, count: int, *, seed: int) -> list[Source]:
    """`count` sources of equally many images each, at random."""
    order = keyed_generator("splits", seed, count).permutation(len(images))
    part = {images.manifest.ids[row]: place % count for place, row in enumerate(order)}
    return shared_out(images, "random", count, lambda sample: part[sample.id])


def shared_out(images: Source, name: str, count: int, part: Callable[[Sample], int]) -> list[Source]:
    """`count` sources, numbered after a name; `part` says which one a sample belongs to."""
    places = {sample.id: part(sample) for sample in images.manifest}

    def of(k: int) -> Source:
        return images.select(lambda sample: places[sample.id] == k, name=f"{name}-{k}")

    return [of(k) for k in range(count)]
