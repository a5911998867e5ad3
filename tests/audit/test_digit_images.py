"""Labelled images, their split, and rejects that are what they say."""

from __future__ import annotations

import pytest
import torch

from intarsia.audit import REJECT_KINDS, Digits, make_rejects, split_digits
from intarsia.data import Source
from intarsia.errors import InputError, SettingsError

NO_LETTERS = torch.zeros(0, 1, 8, 8)


@pytest.fixture
def marked() -> Digits:
    """Images that tell their class: class k has ink in row k only, of a strength of its own."""
    labels = torch.arange(40) % 4
    images = torch.full((40, 1, 8, 8), -1.0)
    images[torch.arange(40), 0, labels] = 0.2 + 0.02 * torch.arange(40)[:, None]
    return Digits(images, labels, ("a", "b", "c", "d"))


def test_digits_do_not_depend_on_who_owns_them(train_symbols: Source):
    owners = [train_symbols.select(lambda sample, kind=kind: sample.label == kind) for kind in train_symbols.labels]
    whole, parts = Digits.of(train_symbols), Digits.of(owners[::-1])
    assert torch.equal(whole.images, parts.images)
    assert torch.equal(whole.labels, parts.labels)
    assert whole.classes == parts.classes == ("cross", "ring", "stairs")


def test_split_is_disjoint_whole_and_stable(train_symbols: Source):
    split = split_digits([train_symbols])
    parts = [set(part[0].manifest.ids) for part in (split.train, split.judge, split.reference)]
    assert set.union(*parts) == set(train_symbols.manifest.ids)
    assert sum(map(len, parts)) == len(train_symbols)
    assert [len(part) / len(train_symbols) for part in parts] == pytest.approx([0.5, 0.25, 0.25], abs=0.1)
    fewer = split_digits([train_symbols.select(lambda sample: sample.label == "ring")])
    assert set(fewer.judge[0].manifest.ids) < parts[1]


@pytest.mark.parametrize(("judge", "reference"), [(0.5, 0.5), (0.0, 0.2), (0.2, -0.1)])
def test_split_leaves_something_to_train_on(train_symbols: Source, judge: float, reference: float):
    with pytest.raises(SettingsError, match="shares above 0"):
        split_digits([train_symbols], judge=judge, reference=reference)


def test_blends_are_of_two_classes(marked: Digits):
    """Overlays show whole rows: always two of them. Pairs by chance would often show one."""
    overlays = make_rejects(marked, NO_LETTERS, count=700, seed=0).of_kind("overlay")
    inked = (overlays[:, 0] > -1).all(2).sum(1)
    assert len(overlays) > 100
    assert (inked == 2).all()


def test_blends_are_made_of_all_pairs(marked: Digits):
    overlays = make_rejects(marked, NO_LETTERS, count=1400, seed=0).of_kind("overlay")
    pairs = {tuple(torch.nonzero(image[0, :, 0] > -1)[:, 0].tolist()) for image in overlays}
    assert len(pairs) == 6


def test_averages_lie_between(marked: Digits):
    averages = make_rejects(marked, NO_LETTERS, count=700, seed=0).of_kind("average")
    assert averages.amax(dim=(1, 2, 3)).max() < 0.01  # (-1 + at most 1) / 2


def test_shuffled_pieces_keep_the_ink(train_symbols: Source):
    digits = Digits.of(train_symbols)
    pieces = make_rejects(digits, NO_LETTERS, count=700, seed=0).of_kind("shuffled")
    known = {tuple(image.flatten().sort().values.tolist()): image for image in digits.images}
    originals = [known[tuple(image.flatten().sort().values.tolist())] for image in pieces]
    assert sum(torch.equal(image, original) for image, original in zip(pieces, originals, strict=True)) == 0


@pytest.mark.parametrize("size", [8, 28])
def test_rejects_are_images_of_every_kind(size: int):
    digits = Digits(torch.rand(20, 1, size, size) * 2 - 1, torch.arange(20) % 2, ("0", "1"))
    rejects = make_rejects(digits, torch.rand(50, 1, size, size), count=100, seed=3)
    assert rejects.images.shape == (100, 1, size, size)
    assert rejects.images.abs().max() <= 1
    assert set(rejects.kinds) == {*REJECT_KINDS, "letter"}
    assert rejects.kinds.count("letter") == 30
    assert {rejects.kinds.count(kind) for kind in REJECT_KINDS} <= {11, 12}


def test_noise_holds_plain_images_too(marked: Digits):
    noise = make_rejects(marked, NO_LETTERS, count=700, seed=0).of_kind("noise")
    plain = noise[noise.flatten(1).std(1) == 0]
    assert 0.15 < len(plain) / len(noise) < 0.4
    assert (plain == -1).any()
    assert (plain > 0).any()


def test_rejects_are_fixed_by_their_seed(marked: Digits):
    letters = torch.rand(30, 1, 8, 8)
    first, again, other = (make_rejects(marked, letters, count=80, seed=seed).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bad_input_is_refused(marked: Digits):
    with pytest.raises(InputError, match="draw them at one size"):
        make_rejects(marked, torch.zeros(3, 1, 9, 9), count=50, seed=0)
    with pytest.raises(SettingsError, match="at least"):
        make_rejects(marked, NO_LETTERS, count=2, seed=0)
    with pytest.raises(InputError, match="grey squares"):
        Digits(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), ("0", "1"))
    with pytest.raises(InputError, match="one per image"):
        Digits(torch.zeros(2, 1, 8, 8), torch.tensor([0]), ("0", "1"))
    with pytest.raises(InputError, match="single class"):
        Digits(torch.zeros(2, 1, 8, 8), torch.tensor([0, 0]), ("0", "1"))
