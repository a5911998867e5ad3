from __future__ import annotations

import pytest
import torch
from torch import Tensor

from intarsia.backbone import Augmentation
from intarsia.diffusion import keyed_normal


@pytest.fixture
def images() -> Tensor:
    return keyed_normal((16, 3, 8, 8), "images").clamp(-1, 1)


def changed_rows(before: Tensor, after: Tensor) -> list[bool]:
    return [not torch.allclose(a, b, atol=1e-4) for a, b in zip(before, after, strict=True)]


def test_a_share_of_one_leaves_everything(images: Tensor) -> None:
    torch.testing.assert_close(Augmentation(share=1.0)(images, 0), images, atol=1e-5, rtol=0)


def test_no_range_leaves_everything(images: Tensor) -> None:
    still = Augmentation(rotate=0, scale=0, shift=0, share=0)
    torch.testing.assert_close(still(images, 0), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("which", ["rotate", "scale", "shift"])
def test_each_range_changes_images(which: str, images: Tensor) -> None:
    ranges = {"rotate": 0.0, "scale": 0.0, "shift": 0.0, which: {"rotate": 10.0, "scale": 0.1, "shift": 0.06}[which]}
    assert all(changed_rows(images, Augmentation(**ranges, share=0.0)(images, 1)))


def test_a_share_of_the_images_is_left() -> None:
    images = keyed_normal((400, 1, 6, 6), "many")
    changed = changed_rows(images, Augmentation(share=0.4)(images, 0))
    assert 0.5 < sum(changed) / 400 < 0.7


def test_the_key_decides(images: Tensor) -> None:
    augment = Augmentation()
    first = augment(images, "pretrain", 0, 7)
    torch.rand(3)
    assert torch.equal(augment(images, "pretrain", 0, 7), first)
    assert not torch.equal(augment(images, "pretrain", 0, 8), first)


def test_mirroring_gives_the_image_or_its_mirror_image(images: Tensor) -> None:
    found = Augmentation(share=1.0, mirror=True)(images, 0)
    kept = changed_rows(images.flip(-1), found)
    mirrored = changed_rows(images, found)
    assert all(a != b for a, b in zip(kept, mirrored, strict=True))
    assert 0 < sum(mirrored) < len(images)


def test_no_value_leaves_the_range_and_borders_go_on() -> None:
    white = torch.ones(16, 1, 8, 8)
    torch.testing.assert_close(Augmentation(share=0.0, rotate=45, shift=0.4)(white, 0), white)


def test_moves_by_the_shift_it_names() -> None:
    images = torch.zeros(200, 1, 33, 33)
    images[:, :, 16, 16] = 1.0
    moved = Augmentation(rotate=0, scale=0, shift=0.25, share=0)(images, 0)
    places = torch.stack([image[0].flatten().argmax() for image in moved])
    offset = torch.cat([places // 33 - 16, places % 33 - 16]).abs()
    assert 6 <= offset.max() <= 9  # a quarter of 33
