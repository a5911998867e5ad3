"""Overlap between the core and a source, and among sources.

What the backbone saw in its core set cannot be forgotten, so a source must not hold core pictures (science.md section
4). Exact duplicates are equal ids. Near duplicates are close thumbnails: 8 x 8 means per channel, brought to mean zero
and contrast one, compared by their root-mean-square difference.

The threshold was set on emoji at 32 px and digits at 8 px. Within 0.15 lie at least 96 of 100 copies that were saved as
JPEG of quality 75 or better, made 7 % darker, 10 % more contrasted or slightly noisy. Of pictures by unrelated owners
at most 6 in 1,000 do, such as two plain squares; of letters and digits none. A picture moved by one pixel is not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from intarsia.data.manifest import Sample
from intarsia.data.source import Source
from intarsia.errors import IngestError, SettingsError

NEAR = 0.15
_THUMBNAIL = 8
_LOWEST_CONTRAST = 0.2  # of pixels in [-1, 1]; below it a picture counts as nearly plain and is not stretched further
_BLOCK = 1024


@dataclass(frozen=True)
class Overlap:
    """Two samples, each of its source, that show the same picture (`distance` 0.0) or nearly the same."""

    first_source: str
    first: Sample
    second_source: str
    second: Sample
    distance: float

    def __str__(self) -> str:
        how = "the same picture as" if self.distance == 0 else f"close ({self.distance:.3f}) to"
        return f"{self.second_source}/{self.second.file_name}: {how} {self.first_source}/{self.first.file_name}"


def exact_duplicates(first: Source, second: Source) -> list[Overlap]:
    """Pictures that are in both sources, pixel by pixel, in manifest order."""
    known = {sample.id: sample for sample in first.manifest}
    return [
        Overlap(first.name, known[sample.id], second.name, sample, 0.0)
        for sample in second.manifest
        if sample.id in known
    ]


def near_duplicates(first: Source, second: Source, *, threshold: float = NEAR) -> list[Overlap]:
    """For each sample of `second`, its nearest sample of `first` if it is closer than `threshold`; never exact ones.

    Raises:
        SettingsError: `threshold` is not positive.
    """
    if not threshold > 0:
        raise SettingsError(f"threshold is {threshold}; it must be positive")
    if not len(first) or not len(second):
        return []
    exact = {pair.second.id for pair in exact_duplicates(first, second)}
    found = []
    for index, (nearest, distance) in enumerate(_nearest(_thumbnails(first), _thumbnails(second))):
        sample = second.manifest.samples[index]
        if distance < threshold and sample.id not in exact:
            found.append(Overlap(first.name, first.manifest.samples[nearest], second.name, sample, distance))
    return found


def refuse_core_overlap(core: Source, source: Source, *, threshold: float = NEAR) -> list[Overlap]:
    """Check a source against the core set; returns its near duplicates, for the owner to look at.

    Raises:
        IngestError: the source holds pictures of the core set; all of them are listed.
    """
    exact = exact_duplicates(core, source)
    if exact:
        raise IngestError(source.name, [f"{pair}, which is core and could never be forgotten" for pair in exact])
    return near_duplicates(core, source, threshold=threshold)


def overlaps(sources: Sequence[Source], *, threshold: float = NEAR) -> list[Overlap]:
    """Exact and near duplicates between every two sources, for a report; shared pictures are no error."""
    found: list[Overlap] = []
    for first, second in combinations(sources, 2):
        found += exact_duplicates(first, second) + near_duplicates(first, second, threshold=threshold)
    return found


def _thumbnails(source: Source) -> Tensor:
    """(N, 3 * 64) of mean 0 and root-mean-square 1, so that plain distances are distances of contrast-free pictures."""
    blocks = []
    for rows in torch.arange(len(source)).split(_BLOCK):
        small = F.adaptive_avg_pool2d(source.select_pixels(rows), _THUMBNAIL)
        blocks.append(small.expand(-1, 3, -1, -1).flatten(1))
    flat = torch.cat(blocks)
    flat = flat - flat.mean(1, keepdim=True)
    contrast = flat.square().mean(1, keepdim=True).sqrt()
    return flat / contrast.clamp_min(_LOWEST_CONTRAST)


def _nearest(known: Tensor, asked: Tensor) -> Iterator[tuple[int, float]]:
    """(row of `known`, root-mean-square distance) for each row of `asked`."""
    for block in asked.split(_BLOCK):
        distance, row = torch.cdist(block, known, compute_mode="donot_use_mm_for_euclid_dist").min(1)
        yield from zip(row.tolist(), (distance / known.shape[1] ** 0.5).tolist(), strict=True)
