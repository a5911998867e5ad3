"""What a source holds, without its pixels: one record per image, and one digest over all of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from intarsia.data.images import Pixels
from intarsia.errors import CorruptError, InputError, UnknownName
from intarsia.merkle import merkle_root

_ID = re.compile(r"[0-9a-f]{64}")
_SHORTEST_PREFIX = 4
RISKS = ("high", "normal")


def sample_id(pixels: Pixels) -> str:
    """sha256 hex of one decoded image uint8 (H, W, C): its shape, then its bytes.

    The same picture saved twice, in two formats or under two names has one id.
    """
    shape = "x".join(str(side) for side in pixels.shape)
    return hashlib.sha256(f"{shape}\n".encode() + pixels.tobytes()).hexdigest()


@dataclass(frozen=True)
class Sample:
    """One image of a source: `id` of its pixels, where it came from, its caption and its class.

    `risk` says how likely its owner thinks it that it must be forgotten: "high", "normal", or None for no word on it.
    `batch` counts the times that samples were added to the source, from 0, which came first.
    """

    id: str
    file_name: str
    text: str | None = None
    label: str | None = None
    risk: str | None = None
    batch: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not _ID.fullmatch(self.id):
            raise InputError(f"sample id {self.id!r} is not a sha256 digest (64 lower-case hex digits)")
        if not isinstance(self.file_name, str) or not self.file_name:
            raise InputError(f"sample {self.id[:12]} has the file name {self.file_name!r}; expected some text")
        for field in ("text", "label"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, str):
                raise InputError(f"{self.file_name}: {field} is {value!r}; expected text or nothing")
        if self.risk not in (None, *RISKS):
            raise InputError(f"{self.file_name}: risk is {self.risk!r}; expected {' or '.join(RISKS)}, or nothing")
        if not isinstance(self.batch, int) or isinstance(self.batch, bool) or self.batch < 0:
            raise InputError(f"{self.file_name}: batch is {self.batch!r}; expected a whole number from 0")
        try:
            self.canonical()
        except UnicodeEncodeError:
            raise InputError(
                f"{self.file_name!r}: its name, caption or label is not valid Unicode; write it in UTF-8"
            ) from None

    def canonical(self) -> bytes:
        """The bytes that stand for this record in the Merkle root: JSON with sorted keys, no spaces, UTF-8."""
        return json.dumps(self.record(), separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode()

    def record(self) -> dict[str, Any]:
        """JSON-able; without what is not said: no risk, and the first batch."""
        # Not by `asdict`, which copies deeply: there are as many of these as images, and every opening makes them all.
        record: dict[str, Any] = dict(vars(self))
        for name, nothing in (("risk", None), ("batch", 0)):
            if record[name] == nothing:
                del record[name]
        return record


_FIELDS = frozenset(field.name for field in fields(Sample))


@dataclass(frozen=True)
class Manifest:
    """The samples of a source, ordered by id, each id once.

    Raises:
        InputError: two samples have the same id, that is, the same pixels.
    """

    samples: tuple[Sample, ...]

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.samples, key=lambda sample: sample.id))
        twice = [id for id, count in Counter(sample.id for sample in ordered).items() if count > 1]
        if twice:
            names = [sample.file_name for sample in ordered if sample.id == twice[0]]
            raise InputError(
                f"{len(twice)} picture{'s are' if len(twice) > 1 else ' is'} listed more than once "
                f"(first: {', '.join(names)}); keep one of each"
            )
        object.__setattr__(self, "samples", ordered)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Sample ids in manifest order."""
        return tuple(sample.id for sample in self.samples)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The distinct labels, sorted; empty when no sample has one."""
        return tuple(sorted({sample.label for sample in self.samples if sample.label is not None}))

    @cached_property
    def batches(self) -> int:
        """How many times samples were added, the first time included."""
        return max((sample.batch for sample in self.samples), default=0) + 1

    @cached_property
    def root(self) -> str:
        """Merkle tree hash of the canonical samples (RFC 6962 section 2.1), hex."""
        return merkle_root([sample.canonical() for sample in self.samples]).hex()

    def find(self, prefix: str) -> Sample:
        """The one sample whose id starts with `prefix` (at least four hex digits).

        Raises:
            InputError: the prefix is too short, or several samples match.
            UnknownName: none matches.
        """
        if len(prefix) < _SHORTEST_PREFIX:
            raise InputError(f"sample id prefix '{prefix}' is too short; give at least {_SHORTEST_PREFIX} digits")
        matches = [sample for sample in self.samples if sample.id.startswith(prefix)]
        if not matches:
            raise UnknownName("sample", prefix, [id[:12] for id in self.ids])
        if len(matches) > 1:
            shown = ", ".join(sample.id[: len(prefix) + 4] for sample in matches[:5])
            raise InputError(f"sample id prefix '{prefix}' fits {len(matches)} samples ({shown}); give more digits")
        return matches[0]

    def without(self, ids: Collection[str]) -> Manifest:
        """The manifest as if the samples with these ids had never been in it.

        If nothing is left of a batch, those after it are counted as if it had never come.

        Raises:
            UnknownName: an id is not in the manifest.
        """
        gone = frozenset(ids)
        for id in sorted(gone.difference(self.ids)):
            raise UnknownName("sample", id, [known[:12] for known in self.ids])
        left = [sample for sample in self.samples if sample.id not in gone]
        place = {batch: number for number, batch in enumerate(sorted({sample.batch for sample in left}))}
        return Manifest(tuple(replace(sample, batch=place[sample.batch]) for sample in left))

    def before(self, batch: int) -> Manifest:
        """The manifest as it was when this batch had not come yet."""
        return Manifest(tuple(sample for sample in self.samples if sample.batch < batch))

    def to_json(self) -> str:
        """One JSON document that `from_json` reads back; carries the root, so damage is noticed."""
        return json.dumps(
            {"root": self.root, "samples": [sample.record() for sample in self.samples]},
            ensure_ascii=False,
            indent=1,
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            CorruptError: the text is no such document, or does not hash to the root that it states.
        """
        try:
            document = json.loads(text)
            manifest = cls(tuple(_sample(record) for record in document["samples"]))
            stated = document["root"]
        except (ValueError, KeyError, TypeError, RecursionError, InputError) as error:
            raise CorruptError(f"the manifest cannot be read ({error}); restore it from a copy") from error
        if stated != manifest.root:
            raise CorruptError(f"the manifest hashes to {manifest.root}, but states {stated}; restore it from a copy")
        return manifest


def _sample(record: Any) -> Sample:
    unknown = set(record) - _FIELDS
    if unknown:
        raise InputError(f"unknown field {min(unknown)!r}")
    return Sample(**record)
