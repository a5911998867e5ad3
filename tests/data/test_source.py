"""A source keeps pixels and records together, and splits without moving anybody else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from intarsia.data import Manifest, Source, by_stem, sample_id, to_float
from intarsia.errors import CorruptError, InputError, SettingsError, UnknownName


def test_images_are_in_manifest_order_and_read_only(make_source, picture):
    source = make_source("ada", list(range(20)))
    assert source == make_source("ada", list(range(20))[::-1])
    for sample, image in zip(source.manifest, source.images, strict=True):
        assert sample.id == sample_id(image)
        assert np.array_equal(image, picture(int(sample.file_name[:3])))
    with pytest.raises(ValueError, match="read-only"):
        source.images[0] = 0
    source.verify()
    assert torch.equal(source.pixels(), to_float(source.images))


def test_a_swapped_picture_is_noticed(make_source):
    source = make_source("ada", [0, 1, 2])
    mixed = Source("ada", "Ada", "MIT", "", source.manifest, source.images[[1, 0, 2]])
    with pytest.raises(CorruptError, match="not those of its record"):
        mixed.verify()


def test_licence_is_canonical_and_repr_is_short(make_source):
    source = make_source("ada", [0])
    assert Source("ada", "Ada", "mit", "", source.manifest, source.images).licence == "MIT"
    assert repr(source).startswith("Source('ada', owner='Ada', licence='MIT', 1 images 8x8x3, root=")


@pytest.mark.parametrize("name", ["", "Ada", "a b", "a/b", "..", "-a", "a-", "a--b", "é", "a" * 65, "a\n"])
def test_names_are_slugs(make_source, name):
    with pytest.raises(InputError, match="not a lower-case slug"):
        make_source(name, [0])


def test_wrong_shapes_and_missing_owner(make_source):
    source = make_source("ada", [0, 1])
    fields = ("MIT", "", source.manifest)
    for images in (source.images[..., :2], source.images.astype(np.float32), source.images[0]):
        with pytest.raises(InputError, match="expected uint8"):
            Source("ada", "Ada", *fields, images)
    with pytest.raises(InputError, match="1 images but 2 records"):
        Source("ada", "Ada", *fields, source.images[:1])
    with pytest.raises(InputError, match="has no owner"):
        Source("ada", " ", *fields, source.images)
    with pytest.raises(InputError, match="SPDX"):
        Source("ada", "Ada", "free", "", source.manifest, source.images)


def test_build_refuses_duplicates_and_unequal_columns(make_source, picture):
    with pytest.raises(InputError, match="more than once"):
        make_source("ada", [0, 1, 0])
    with pytest.raises(InputError, match="expected as many"):
        make_source("ada", [0, 1], labels=["x"])


def test_label_vocabulary(make_source):
    source = make_source("ada", [0, 1, 2], labels=["cat", "ant", "cat"])
    assert source.labels == ("ant", "cat")
    assert source.label_indices(("ant", "bee", "cat")).tolist() == [
        {"ant": 0, "cat": 2}[str(sample.label)] for sample in source.manifest
    ]
    with pytest.raises(UnknownName, match="unknown label 'cat'"):
        source.label_indices(("ant",))
    with pytest.raises(InputError, match="has no label"):
        make_source("bob", [0]).label_indices(("ant",))


def test_without_equals_never_having_had_it(make_source, picture):
    source = make_source("ada", [0, 1, 2, 3])
    gone = sample_id(picture(2))
    assert source.without([gone]) == make_source("ada", [0, 1, 3])
    assert np.array_equal(source.without([gone]).images, make_source("ada", [0, 1, 3]).images)
    assert len(source.without(source.manifest.ids)) == 0
    with pytest.raises(UnknownName, match="unknown sample"):
        source.without(["f" * 64])


def test_split_is_a_partition_of_about_the_right_size(make_source):
    source = make_source("ada", list(range(400)))
    train, held = source.split(0.25, seed=3)
    assert set(train.manifest.ids) | set(held.manifest.ids) == set(source.manifest.ids)
    assert not set(train.manifest.ids) & set(held.manifest.ids)
    assert 70 < len(held) < 130
    assert source.split(0.25, seed=4)[1] != held
    assert len(source.split(0.0)[1]) == 0
    held.verify()


def test_a_sample_that_leaves_moves_no_other(make_source):
    source = make_source("ada", list(range(50)))
    train, held = source.split(0.3)
    gone = held.manifest.ids[0]
    assert source.without([gone]).split(0.3) == (train, held.without([gone]))


def test_the_same_concepts_are_held_out_everywhere(picture):
    def source(name: str, first: int) -> Source:
        images = np.stack([picture(first + k) for k in range(60)])
        names = [f"{name}/1f{k:03x}.png" for k in range(60)]
        return Source.build(name, owner="x", licence="MIT", images=images, file_names=names)

    held = [
        {by_stem(s) for s in source(n, f).split(0.3, seed=1, group=by_stem)[1].manifest}
        for n, f in [("a", 0), ("b", 99)]
    ]
    assert held[0] == held[1]
    assert held[0]


@pytest.mark.parametrize("holdout", [-0.1, 1.0, float("nan")])
def test_holdout_is_a_share(make_source, holdout):
    with pytest.raises(SettingsError, match="share in"):
        make_source("ada", [0]).split(holdout)


def test_an_empty_source_is_possible(make_source):
    empty = make_source("ada", [])
    assert empty.manifest == Manifest(())
    assert empty.pixels().shape == (0, 3, 8, 8)
