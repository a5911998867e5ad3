from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from intarsia.backbone import Backbone
from intarsia.diffusion import GaussianMixture, exact_weights, keyed_generator, keyed_normal
from intarsia.errors import CorruptError, IncompatibleError, SettingsError, UnknownName
from intarsia.files import tensors_to_bytes
from intarsia.routers import (
    GaussianPart,
    HeadSettings,
    JointClassifier,
    JointMember,
    PrototypePart,
    ReferencePart,
    SampleSet,
    mid_features,
)

Draws = tuple[Tensor, list[str]]
QUICK = HeadSettings(steps=4, batch=16, hidden=8)
NAMES = ["ash", "birch", "cedar"]
ROOTS = {"ash": "11", "birch": "22", "cedar": "33"}


@pytest.fixture(scope="module")
def members(picture_draws: list[Draws]) -> list[JointMember]:
    return [JointMember(name, ROOTS[name], SampleSet(*each)) for name, each in zip(NAMES, picture_draws, strict=True)]


@pytest.fixture(scope="module")
def classifier(members: list[JointMember], backbone: Backbone) -> JointClassifier:
    return JointClassifier.fit(members, backbone, settings=HeadSettings(steps=150, batch=64, lr=1e-2))


def test_it_approaches_the_exact_posterior(
    classifier: JointClassifier, pictures: list[GaussianMixture], backbone: Backbone
) -> None:
    x0 = torch.cat([source.sample(200, keyed_generator("test", k)) for k, source in enumerate(pictures)])
    t = torch.full((600,), 0.5)
    alpha, sigma = backbone.schedule.alpha(t), backbone.schedule.sigma(t)
    x_t = alpha[:, None] * x0 + sigma[:, None] * keyed_normal(x0.shape, "noise", dtype=torch.float64)
    features = mid_features(backbone, x_t.float().reshape(-1, 1, 4, 4), t)
    weights = classifier(features, t, NAMES).softmax(1)
    exact = exact_weights(pictures, torch.full((3,), 1 / 3).double(), x_t, alpha, sigma)
    assert (weights - exact).abs().mean() < 0.3 * (exact - 1 / 3).abs().mean()


def test_only_it_is_not_isolated() -> None:
    assert not JointClassifier.isolated
    assert all(kind.isolated for kind in (GaussianPart, ReferencePart, PrototypePart))


def test_it_refuses_to_serve_when_a_source_has_changed(classifier: JointClassifier) -> None:
    classifier.check(ROOTS | {"a newcomer": "44"})
    with pytest.raises(IncompatibleError, match=r"'birch' was 22… and is 99…"):
        classifier.check(ROOTS | {"birch": "99"})
    with pytest.raises(IncompatibleError, match=r"'ash' is gone; 'cedar' was"):
        classifier.check({"birch": "22", "cedar": "34"})


def test_sources_are_asked_for_by_name(classifier: JointClassifier, backbone: Backbone) -> None:
    t = torch.full((4,), 0.5)
    features = mid_features(backbone, keyed_normal((4, 1, 4, 4), "x_t"), t)
    whole = classifier(features, t, NAMES)
    assert torch.equal(classifier(features, t, ["cedar", "ash"]), whole[:, [2, 0]])
    with pytest.raises(UnknownName, match="'oak'"):
        classifier(features, t, ["oak"])


def test_the_same_sources_give_the_same_bytes(
    members: list[JointMember], picture_draws: list[Draws], backbone: Backbone
) -> None:
    once = JointClassifier.fit(members, backbone, settings=QUICK)
    shuffled = [
        JointMember(name, ROOTS[name], SampleSet(latents.flip(0), names[::-1]))
        for name, (latents, names) in zip(NAMES, picture_draws, strict=True)
    ]
    again = JointClassifier.fit(shuffled, backbone, settings=QUICK)
    assert tensors_to_bytes(again.tensors()) == tensors_to_bytes(once.tensors())
    fewer = JointClassifier.fit(members[:2], backbone, settings=QUICK)
    assert not torch.equal(fewer.params["query"], once.params["query"])


def test_stored_and_read_back(classifier: JointClassifier) -> None:
    again = JointClassifier.from_tensors(classifier.tensors(), json.loads(json.dumps(classifier.settings())))
    assert again.settings() == classifier.settings()
    again.check(ROOTS)
    with pytest.raises(CorruptError, match="lacks query"):
        JointClassifier.from_tensors({}, classifier.settings())
    with pytest.raises(CorruptError, match="cannot be read"):
        JointClassifier.from_tensors(classifier.tensors(), {"members": [["ash"]]})


def test_members_that_make_no_classifier_are_refused(members: list[JointMember], backbone: Backbone) -> None:
    for wrong in (members[:1], [members[0], members[0]], []):
        with pytest.raises(SettingsError, match="at least two sources"):
            JointClassifier.fit(wrong, backbone)
    flat = JointMember("oak", "44", SampleSet(members[0].samples.latents.flatten(1), members[0].samples.ids))
    with pytest.raises(SettingsError, match="encode them with it"):
        JointClassifier.fit([*members, flat], backbone)
