"""The data of the paper's Table 2: pictures with captions, in three sources by how beautiful they were found.

"We obtain 3 subsets of MSCOCO based on aesthetic scores, (1) AE6+: 1k samples with aesthetic score > 6, (2) AE6-: top
1k samples with aesthetic score < 6, (3) AE5-: top 1k samples with aesthetic score < 5" (paper, section 5). Of AE6+ the
highest are taken, and AE6- ends at 5: with MSCOCO that changes nothing, and no picture is ever in two sources.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from intarsia.audit import FeatureNetwork
from intarsia.data import ReadOptions, Source, read_source
from intarsia.data.readers.folder import METADATA
from intarsia.data.source import hash_fraction
from intarsia.errors import IncompatibleError, InputError, counted
from intarsia.experiments.reproduce.world import Owner, World
from intarsia.files import read_bytes
from intarsia.vault.package import check_package, find_package

SCORE = "aesthetic_score"
SUBSETS: Mapping[str, tuple[str, Callable[[float], bool]]] = MappingProxyType(
    {
        "ae6-plus": ("above 6", lambda score: score > 6),
        "ae6-minus": ("from 5 to below 6", lambda score: 5 <= score < 6),
        "ae5-minus": ("below 5", lambda score: score < 5),
    }
)
"""Which scores the pictures of each source have."""

_SPLIT = 0  # seed of the hash by which the prompts are chosen
_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many pictures each subset has, at most, and how many are held out: for prompts, and to be compared with."""

    subset: int = 1000
    held: int = 5000


PAPER_COUNTS = Counts()


def aesthetic_world(
    folder: Path, backbone: str | Path, network: FeatureNetwork, *, counts: Counts | None = None
) -> World:
    """Pictures with captions and scores, in a folder with `metadata.jsonl` (`file_name`, `text`, `aesthetic_score`).

    Only what is chosen is read, cut to squares of the backbone's size.

    Raises:
        IncompatibleError: the backbone reads no text.
        InputError: a picture without caption or score, or too few of them.
        IngestError: pictures that cannot be read; all are listed.
    """
    counts, package = counts or PAPER_COUNTS, find_package(backbone)
    public = check_package(package)
    if public.text is None:
        raise IncompatibleError(
            f"the backbone {backbone} reads no text, which this table is about; give a package that 'intarsia convert' "
            "makes of a Stable Diffusion pipeline"
        )
    scores = read_scores(folder)
    chosen = subsets_of(scores, counts.subset)
    held = _held_out(scores.keys() - frozenset().union(*chosen.values()), counts.held)
    channels, size, _ = public.image_shape

    def read(name: str, files: Collection[str]) -> Source:
        options = ReadOptions(resize="crop")
        terms = {"owner": "unknown", "licence": "LicenseRef-unknown"}
        return read_source(folder, name=name, **terms, size=size, channels=channels, options=options, only=files)

    images, reference = read("all", frozenset().union(*chosen.values())), read("reference", held)
    # Training cuts a caption that is too long, but what is asked for is never cut.
    takes = public.text.takes
    reference = reference.select(lambda sample: takes(sample.text))
    owners = tuple(Owner(_part(images, name, files), reference) for name, files in chosen.items())
    return World(
        name=folder.name,
        package=package,
        images=images,
        reference=reference,
        network=network,
        owners=owners,
        captioned=True,
    )


def _part(images: Source, name: str, files: Collection[str]) -> Source:
    return images.select(lambda sample: sample.file_name in files, name=name)


def read_scores(folder: Path) -> dict[str, float]:
    """The aesthetic score of every picture that has a caption, by file name.

    Raises:
        InputError: a line of the table is not such.
    """
    path = folder.expanduser() / METADATA
    hint = f"expected a line for each picture with file_name, text and {SCORE}"
    scores: dict[str, float] = {}
    for number, line in enumerate(read_bytes(path, missing=hint).decode("utf-8-sig", "replace").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            name, text, score = record["file_name"], record["text"], record[SCORE]
            good = isinstance(name, str) and bool(text.strip()) and math.isfinite(score) and score is not True
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            good = False
        if not good:
            raise InputError(f"{path}, line {number}: {hint}, found {line[:80]}")
        scores[name] = float(score)
    return scores


def subsets_of(scores: Mapping[str, float], most: int) -> dict[str, frozenset[str]]:
    """The names of each subset's pictures: those of the `most` highest scores; of equal ones the first by name.

    Raises:
        InputError: a subset of next to none.
    """
    ranked = sorted(scores, key=lambda name: (-scores[name], name))
    found = {}
    for subset, (words, within) in SUBSETS.items():
        inside = [name for name in ranked if within(scores[name])]
        if len(inside) < _FEWEST:
            raise InputError(
                f"{counted(len(inside), 'picture')} with {SCORE} {words}, of which the source '{subset}' is made; "
                "give pictures of all scores, on the scale from 1 to 10"
            )
        found[subset] = frozenset(inside[:most])
    return found


def _held_out(names: Collection[str], most: int) -> frozenset[str]:
    """Those with the smallest hashes."""
    held = sorted(names, key=lambda name: hash_fraction(_SPLIT, name))[:most]
    if len(held) < _FEWEST:
        raise InputError(
            f"{counted(len(held), 'picture')} in no subset, and their captions are what is drawn; give more pictures"
        )
    return frozenset(held)
