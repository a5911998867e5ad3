"""Shards partition a source, and each sample's shard depends on that sample alone."""

from __future__ import annotations

import pytest

from intarsia.data import by_attribute, by_hash, by_label, share_alike
from intarsia.errors import InputError, SettingsError


def ids(sources):
    return [id for source in sources for id in source.manifest.ids]


def test_by_label(make_source):
    source = make_source("ada", [0, 1, 2, 3], labels=["B", "a b", "b", "B"])
    shards = by_label(source)
    assert [shard.name for shard in shards] == ["ada-b-upper", "ada-a-b", "ada-b"]
    assert [shard.labels for shard in shards] == [("B",), ("a b",), ("b",)]
    assert sorted(ids(shards)) == list(source.manifest.ids)
    assert {shard.owner for shard in shards} == {"Ada"}
    assert not any(share_alike(shard.licence) for shard in shards)


def test_by_label_wants_labels_and_distinct_names(make_source):
    with pytest.raises(InputError, match="has no label"):
        by_label(make_source("ada", [0]))
    with pytest.raises(InputError, match="shards of one name"):
        by_label(make_source("ada", [0, 1], labels=["x y", "x-y"]))


def test_by_attribute(make_source):
    source = make_source("ada", [0, 1, 12])
    assert [len(s) for s in by_attribute(source, lambda sample: sample.file_name[1])] == [2, 1]


def test_by_hash_partitions_evenly_and_moves_nobody(make_source):
    source = make_source("ada", list(range(400)))
    shards = by_hash(source, 4, seed=1)
    assert [shard.name for shard in shards] == ["ada-0", "ada-1", "ada-2", "ada-3"]
    assert sorted(ids(shards)) == list(source.manifest.ids)
    assert all(70 < len(shard) < 130 for shard in shards)
    assert by_hash(source, 4, seed=1) == shards
    assert by_hash(source, 4, seed=2) != shards
    gone = shards[2].manifest.ids[0]
    assert by_hash(source.without([gone]), 4, seed=1) == [*shards[:2], shards[2].without([gone]), shards[3]]
    with pytest.raises(SettingsError, match="at least 1"):
        by_hash(source, 0)
