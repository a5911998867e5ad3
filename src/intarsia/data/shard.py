"""Cutting one source into several: by class, by an attribute such as the owner, or by hash.

Every rule looks at one sample at a time, so a sample that joins or leaves moves no other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from intarsia.data.manifest import Sample
from intarsia.data.source import Source, hash_fraction
from intarsia.errors import InputError, SettingsError


def by_attribute(source: Source, attribute: Callable[[Sample], str]) -> list[Source]:
    """One source per value of `attribute`, in the order of the values, named `<source>-<value>`.

    Raises:
        InputError: two values give the same name.
    """
    values = sorted({attribute(sample) for sample in source.manifest})
    names = {value: f"{source.name}-{_slug(value)}" for value in values}
    if len(set(names.values())) < len(values):
        shared = sorted(value for value in values if list(names.values()).count(names[value]) > 1)
        raise InputError(f"the values {', '.join(map(repr, shared))} would give shards of one name; rename them")
    return [_shard(source, attribute, value, names[value]) for value in values]


def by_label(source: Source) -> list[Source]:
    """One source per class.

    Raises:
        InputError: a sample has no label.
    """
    return by_attribute(source, lambda sample: _label(source, sample))


def by_hash(source: Source, shards: int, *, seed: int = 0) -> list[Source]:
    """`shards` sources of about equal size, named `<source>-0` and so on; a sample's shard is a hash of (seed, id).

    A shard may be empty when samples are few.

    Raises:
        SettingsError: `shards` is not positive.
    """
    if shards < 1:
        raise SettingsError(f"shards is {shards}; it must be at least 1")

    def place(sample: Sample) -> str:
        return str(int(hash_fraction(seed, sample.id) * shards))

    return [_shard(source, place, str(k), f"{source.name}-{k}") for k in range(shards)]


def _shard(source: Source, attribute: Callable[[Sample], str], value: str, name: str) -> Source:
    return source.select(lambda sample: attribute(sample) == value, name=name)


def _label(source: Source, sample: Sample) -> str:
    if sample.label is None:
        raise InputError(f"source '{source.name}': {sample.file_name} has no label; label all of its images")
    return sample.label


def _slug(value: str) -> str:
    """The value as part of a source name; a single capital is told from its small letter as `a-upper`."""
    plain = unicodedata.normalize("NFKD", value).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "none"
    return f"{slug}-upper" if len(value) == 1 and value.isupper() else slug
