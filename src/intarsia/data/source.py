"""A source: what one owner contributes, pixels and records together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Self

import numpy as np
import torch
from torch import Tensor

from intarsia.data.images import Pixels, to_float
from intarsia.data.licence import check_licence
from intarsia.data.manifest import Manifest, Sample, sample_id
from intarsia.errors import CorruptError, InputError, SettingsError, UnknownName

_SLUG = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_LONGEST_NAME = 64


def is_name(name: object) -> bool:
    """Whether it is a lower-case slug of at most 64 characters."""
    return isinstance(name, str) and len(name) <= _LONGEST_NAME and _SLUG.fullmatch(name) is not None


def check_name(name: str, what: str = "source") -> str:
    """Return `name` if it can name a source, or another thing: it becomes a folder, a column and a part of addresses.

    Raises:
        InputError: it is not a lower-case slug of at most 64 characters.
    """
    if not is_name(name):
        raise InputError(
            f"{what} name {name!r} is not a lower-case slug; use letters a-z, digits and single - or _ between them, "
            f"at most {_LONGEST_NAME} characters"
        )
    return name


def check_owner(name: str, owner: str) -> None:
    """Refuse to take images that nobody holds.

    Raises:
        InputError: the owner of the source of this name is blank.
    """
    if not owner.strip():
        raise InputError(f"source '{name}' has no owner; name the person or organisation who holds the data")


def by_id(sample: Sample) -> str:
    """Group every picture by itself."""
    return sample.id


def by_stem(sample: Sample) -> str:
    """Group by the file name without folder and suffix: one concept, such as a code point, in every source."""
    return PurePosixPath(sample.file_name).stem


@dataclass(frozen=True, eq=False)
class Source:
    """Images of one owner under one licence.

    `images` is uint8 (N, H, W, C) with C = 1 or 3, in manifest order, and is made read-only. `licence` is an SPDX
    expression, stored in its canonical spelling. Two sources are equal when their records and manifest roots are.

    Raises:
        InputError: the name, licence, owner, or the shape of `images` is not as described.
    """

    name: str
    owner: str
    licence: str
    attribution: str
    manifest: Manifest
    images: Pixels

    def __post_init__(self) -> None:
        check_name(self.name)
        check_owner(self.name, self.owner)
        object.__setattr__(self, "licence", check_licence(self.licence))
        shape = self.images.shape
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or shape[3] not in (1, 3) or 0 in shape[1:]:
            raise InputError(
                f"source '{self.name}' has {self.images.dtype} images of shape {shape}; "
                "expected uint8 (N, H, W, 1 or 3)"
            )
        if len(self.images) != len(self.manifest):
            raise InputError(
                f"source '{self.name}' has {len(self.images)} images but {len(self.manifest)} records; expected as many"
            )
        frozen = np.ascontiguousarray(self.images).view()
        frozen.flags.writeable = False
        object.__setattr__(self, "images", frozen)

    @classmethod
    def build(
        cls,
        name: str,
        *,
        owner: str,
        licence: str,
        images: Pixels,
        file_names: Sequence[str],
        texts: Sequence[str | None] | None = None,
        labels: Sequence[str | None] | None = None,
        attribution: str = "",
    ) -> Self:
        """A source from images in any order; ids are computed and everything is put into manifest order.

        Raises:
            InputError: as the constructor, or two images are the same picture, or the lengths differ.
        """
        nothing: list[str | None] = [None] * len(images)
        columns = (file_names, nothing if texts is None else texts, nothing if labels is None else labels)
        if any(len(column) != len(images) for column in columns):
            lengths = ", ".join(str(len(column)) for column in columns)
            raise InputError(f"{len(images)} images, but {lengths} file names, texts and labels; expected as many")
        samples = [
            Sample(sample_id(image), file_name, text, label)
            for image, file_name, text, label in zip(images, *columns, strict=True)
        ]
        order = sorted(range(len(samples)), key=lambda k: samples[k].id)
        return cls(name, owner, licence, attribution, Manifest(tuple(samples)), images[order])

    def __len__(self) -> int:
        return len(self.manifest)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Source):
            return NotImplemented
        return self._record() == other._record()

    def __hash__(self) -> int:
        return hash(self._record())

    def __repr__(self) -> str:
        return (
            f"Source('{self.name}', owner='{self.owner}', licence='{self.licence}', {len(self)} images "
            f"{'x'.join(map(str, self.images.shape[1:]))}, root={self.manifest.root[:12]})"
        )

    def _record(self) -> tuple[str, str, str, str, str]:
        return self.name, self.owner, self.licence, self.attribution, self.manifest.root

    def pixels(self) -> Tensor:
        """float32 (N, C, H, W) in [-1, 1], in manifest order."""
        return to_float(self.images)

    def select_pixels(self, rows: Tensor) -> Tensor:
        """float32 (len(rows), C, H, W) in [-1, 1] of the rows of the manifest given by an int64 tensor."""
        return to_float(self.images[rows.numpy()])

    @property
    def labels(self) -> tuple[str, ...]:
        """The distinct labels, sorted; empty when no sample has one."""
        return self.manifest.labels

    def label_indices(self, vocabulary: Sequence[str]) -> Tensor:
        """int64 (N,): the place of each sample's label in `vocabulary`.

        Raises:
            InputError: a sample has no label.
            UnknownName: a label is not in the vocabulary.
        """
        place = {label: index for index, label in enumerate(vocabulary)}
        for sample in self.manifest:
            if sample.label is None:
                raise InputError(f"source '{self.name}': {sample.file_name} has no label; label all of its images")
            if sample.label not in place:
                raise UnknownName("label", sample.label, vocabulary)
        return torch.tensor([place[sample.label] for sample in self.manifest if sample.label is not None])

    def verify(self) -> None:
        """Hash every image again.

        Raises:
            CorruptError: an image is not the one that its record names.
        """
        for sample, image in zip(self.manifest, self.images, strict=True):
            if sample_id(image) != sample.id:
                raise CorruptError(
                    f"source '{self.name}': the pixels of {sample.file_name} are not those of its record"
                )

    def without(self, ids: Collection[str]) -> Source:
        """The source as if these samples had never been in it.

        Raises:
            UnknownName: an id is not in the manifest.
        """
        manifest = self.manifest.without(ids)
        kept = frozenset(manifest.ids)
        return replace(self.select(lambda sample: sample.id in kept), manifest=manifest)

    def declared(self, risk: str) -> Source:
        """The source with this risk of deletion ("high" or "normal") for all samples of which nothing is said.

        Raises:
            InputError: no such risk.
        """
        samples = tuple(replace(sample, risk=sample.risk or risk) for sample in self.manifest)
        return replace(self, manifest=Manifest(samples))

    def select(self, keep: Callable[[Sample], bool], *, name: str | None = None) -> Source:
        """The samples for which `keep` is true, under the same terms."""
        mask = np.fromiter((keep(sample) for sample in self.manifest), dtype=bool, count=len(self))
        samples = tuple(sample for sample, kept in zip(self.manifest, mask, strict=True) if kept)
        return replace(self, name=name or self.name, manifest=Manifest(samples), images=self.images[mask])

    def split(self, holdout: float, *, seed: int = 0, group: Callable[[Sample], str] = by_id) -> tuple[Source, Source]:
        """(train, held out): a group is held out when its keyed hash falls below `holdout`.

        The verdict depends on (seed, group key) alone, so `by_stem` holds out the same concepts in every source, and
        a sample that joins or leaves moves no other.

        Raises:
            SettingsError: `holdout` is not in [0, 1).
        """
        if not 0.0 <= holdout < 1.0:
            raise SettingsError(f"holdout is {holdout}; it is a share in [0, 1)")
        held = {sample.id for sample in self.manifest if hash_fraction(seed, group(sample)) < holdout}
        return self.select(lambda sample: sample.id not in held), self.select(lambda sample: sample.id in held)


def hash_fraction(seed: int, key: str) -> float:
    """A number in [0, 1), uniform over keys and fixed by (seed, key)."""
    digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
