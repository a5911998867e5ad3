"""Owners who draw the same things in their own way are told apart by how, not by what."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from intarsia.audit import OwnerSettings, fit_owner_classifier, style_statistics
from intarsia.audit.owner_classifier import filter_bank, opponent
from intarsia.data import Source, by_stem
from intarsia.errors import InputError, SettingsError

CONCEPTS = 120


def drawing(style: str, concept: int) -> np.ndarray:
    """uint8 (16, 16, 3): one blob per concept; styles differ in edge and shade, and share colours and places."""
    draw = np.random.default_rng(concept)
    row, column = np.mgrid[:16, :16] - draw.uniform(5, 10, (2, 1, 1))
    radius = np.hypot(row * draw.uniform(0.7, 1.4), column) / draw.uniform(3, 6)
    colour = draw.uniform(30, 220, 3)
    inside = (radius < 1)[..., None]
    outline = ((radius >= 0.8) & (radius < 1.1))[..., None]
    shade = 1 - 0.5 * np.clip(radius, 0, 1)[..., None]
    picture = {
        "flat": np.where(inside, colour, 255),
        "outlined": np.where(outline, 0, np.where(inside, colour, 255)),
        "shaded": np.where(inside, colour * shade, 255),
    }[style]
    return np.rint(picture).astype(np.uint8)


@pytest.fixture(scope="module")
def owners() -> list[Source]:
    return [
        Source.build(
            style,
            owner=style,
            licence="MIT",
            images=np.stack([drawing(style, concept) for concept in range(CONCEPTS)]),
            file_names=[f"{concept:04x}.png" for concept in range(CONCEPTS)],
        )
        for style in ("flat", "outlined", "shaded")
    ]


def test_owners_are_known_by_concepts_never_seen(owners: list[Source]):
    seen, held_out = zip(*(owner.split(0.3, group=by_stem) for owner in owners), strict=True)
    classifier = fit_owner_classifier(seen)
    confusion = classifier.confusion(held_out)
    assert classifier.owners == ("flat", "outlined", "shaded")
    assert classifier.accuracy(held_out) >= 0.9
    torch.testing.assert_close(confusion.sum(1), torch.ones(3, dtype=torch.float64))
    assert classifier.accuracy(held_out) == pytest.approx(confusion.diagonal().mean().item())


def test_same_drawings_under_three_names_are_a_guess(owners: list[Source]):
    """Three shares of one source are no three styles: the classifier must not seem to know better than chance."""
    flat, names = owners[0], ("one", "two", "three")
    fits, tests = [], []
    for place, name in enumerate(names):
        share = flat.select(lambda sample, place=place: int(sample.id[:8], 16) % 3 == place, name=name)
        fit, test = share.split(0.4)
        fits.append(fit)
        tests.append(test)
    assert fit_owner_classifier(fits, OwnerSettings(ridge=(0.1,))).accuracy(tests) < 0.65


def test_probabilities_and_order(owners: list[Source]):
    classifier = fit_owner_classifier(owners, OwnerSettings(ridge=(1e-2,)))
    images = torch.cat([owner.pixels()[:4] for owner in owners])
    chances = classifier.probabilities(images)
    torch.testing.assert_close(chances.sum(1), torch.ones(12))
    assert torch.equal(classifier.predict(images), torch.arange(3).repeat_interleave(4))
    torch.testing.assert_close(classifier.probabilities(images[5:6]), chances[5:6], atol=1e-4, rtol=1e-4)


def test_fit_is_deterministic(owners: list[Source]):
    first, second = (fit_owner_classifier(owners, OwnerSettings(ridge=(1e-2,), rounds=5)) for _ in range(2))
    assert torch.equal(first.params, second.params)


def test_statistics_look_at_style_not_at_place():
    """Moved as a whole within a plain frame, a drawing keeps its statistics."""
    inner = torch.rand(1, 3, 8, 8) * 2 - 1
    here, there = torch.full((2, 1, 3, 24, 24), 1.0)
    here[..., 4:12, 4:12] = inner
    there[..., 10:18, 12:20] = inner
    torch.testing.assert_close(style_statistics(here), style_statistics(there), atol=1e-5, rtol=1e-5)


def test_statistics_take_grey_for_colour():
    grey = torch.rand(2, 1, 8, 8) * 2 - 1
    assert torch.equal(style_statistics(grey), style_statistics(grey.expand(-1, 3, -1, -1)))


def test_filters_ignore_plain_areas():
    assert filter_bank().sum((2, 3)).abs().max() < 1e-6
    assert len(filter_bank()) == 8
    torch.testing.assert_close(opponent(torch.full((1, 3, 2, 2), 0.4))[:, 1:], torch.zeros(1, 2, 2, 2))


def test_bad_input_is_refused(owners: list[Source]):
    with pytest.raises(InputError, match="at least two sources"):
        fit_owner_classifier(owners[:1])
    with pytest.raises(InputError, match="at least 4 pixels"):
        style_statistics(torch.zeros(1, 2, 8, 8))
    classifier = fit_owner_classifier(owners, OwnerSettings(ridge=(1e-2,), rounds=2))
    with pytest.raises(InputError, match="no images of flat"):
        classifier.confusion(owners[1:])
    for wrong in ({"ridge": ()}, {"ridge": (0.0,)}, {"rounds": 0}):
        with pytest.raises(SettingsError):
            OwnerSettings(**wrong)
