"""Core pictures are refused, near ones flagged, shared ones reported."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from intarsia.data import Source, exact_duplicates, near_duplicates, overlaps, refuse_core_overlap
from intarsia.errors import IngestError, SettingsError


def drawing(k: int, side: int = 32) -> Image.Image:
    """A picture that has structure: three coloured shapes."""
    rng = np.random.default_rng(k)
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        x, y, w, h = rng.integers(2, side // 2, 4)
        draw.ellipse((x, y, x + w + 4, y + h + 4), fill=tuple(rng.integers(0, 256, 3)))
    return image


def source(name: str, images: list[Image.Image]) -> Source:
    arrays = np.stack([np.asarray(image) for image in images])
    return Source.build(
        name, owner="x", licence="MIT", images=arrays, file_names=[f"{name}-{k}.png" for k in range(len(images))]
    )


def as_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return Image.open(buffer).convert("RGB")


CORE = source("core", [drawing(k) for k in range(40)])


def test_core_pictures_are_refused_and_all_listed():
    mine = source("mine", [drawing(3), drawing(77), drawing(5)])
    with pytest.raises(IngestError, match="nothing was ingested") as caught:
        refuse_core_overlap(CORE, mine)
    assert len(caught.value.problems) == 2
    assert any("mine/mine-0.png: the same picture as core/core-3.png" in line for line in caught.value.problems)


def test_near_copies_are_flagged_and_others_are_not():
    mine = source("mine", [as_jpeg(drawing(3)), drawing(77), drawing(78)])
    (flag,) = refuse_core_overlap(CORE, mine)
    assert (flag.first.file_name, flag.second.file_name) == ("core-3.png", "mine-0.png")
    assert 0 < flag.distance < 0.15
    assert not exact_duplicates(CORE, mine)
    assert near_duplicates(CORE, mine, threshold=1e-4) == []


def test_brightness_and_grey_copies_are_seen_whatever_the_channels():
    dark = Image.fromarray((np.asarray(drawing(7)) * 0.9).astype(np.uint8))
    assert [pair.first.file_name for pair in near_duplicates(CORE, source("m", [dark]))] == ["core-7.png"]
    dim = Image.fromarray(np.asarray(drawing(7)) // 2)
    lighter = Image.fromarray(np.asarray(dim) + 90)
    assert near_duplicates(source("c", [dim]), source("m", [lighter]))
    grey = [np.asarray(drawing(k).convert("L"))[..., None] for k in range(5)]
    small = Source.build("g", owner="x", licence="MIT", images=np.stack(grey), file_names=list("abcde"))
    assert near_duplicates(small, small) == []


def test_plain_pictures_do_not_blow_up():
    plain = source("plain", [Image.new("RGB", (32, 32), "white"), Image.new("RGB", (32, 32), "red")])
    assert all(np.isfinite(pair.distance) for pair in near_duplicates(CORE, plain))


def test_overlap_across_sources_is_a_report():
    first, second = source("a", [drawing(1), drawing(2)]), source("b", [drawing(2), as_jpeg(drawing(1))])
    found = overlaps([first, second, CORE])
    assert [(p.first_source, p.second_source, p.distance == 0) for p in found][:2] == [
        ("a", "b", True),
        ("a", "b", False),
    ]
    assert {(p.first_source, p.second_source) for p in found} == {("a", "b"), ("a", "core"), ("b", "core")}


def test_empty_sources_and_senseless_thresholds():
    empty = CORE.without(CORE.manifest.ids)
    assert near_duplicates(empty, CORE) == near_duplicates(CORE, empty) == []
    with pytest.raises(SettingsError, match="positive"):
        near_duplicates(CORE, CORE, threshold=0)
