from __future__ import annotations

import pytest
import torch
from torch import Tensor

from intarsia.backbone import Backbone
from intarsia.diffusion import GaussianMixture, exact_weights, keyed_generator, keyed_normal
from intarsia.errors import SettingsError, UnknownName
from intarsia.files import tensors_to_bytes
from intarsia.routers import (
    GaussianPart,
    HeadSettings,
    JointClassifier,
    JointMember,
    PrototypePart,
    ReferencePart,
    SampleSet,
)

Draws = tuple[Tensor, list[str]]
QUICK = HeadSettings(steps=4, batch=16, hidden=8)
NAMES = ["ash", "birch", "cedar"]


@pytest.fixture(scope="module")
def members(picture_draws: list[Draws]) -> list[JointMember]:
    return [JointMember(name, SampleSet(*each)) for name, each in zip(NAMES, picture_draws, strict=True)]


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
    weights = classifier(x_t.float().reshape(-1, 1, 4, 4), t, NAMES).softmax(1)
    exact = exact_weights(pictures, torch.full((3,), 1 / 3).double(), x_t, alpha, sigma)
    assert (weights - exact).abs().mean() < 0.3 * (exact - 1 / 3).abs().mean()


def test_only_it_is_not_isolated() -> None:
    assert not JointClassifier.isolated
    assert all(kind.isolated for kind in (GaussianPart, ReferencePart, PrototypePart))


def test_sources_are_asked_for_by_name(classifier: JointClassifier) -> None:
    x_t, t = keyed_normal((4, 1, 4, 4), "x_t"), torch.full((4,), 0.5)
    whole = classifier(x_t, t, NAMES)
    assert torch.equal(classifier(x_t, t, ["cedar", "ash"]), whole[:, [2, 0]])
    with pytest.raises(UnknownName, match="'oak'"):
        classifier(x_t, t, ["oak"])


def test_the_same_sources_give_the_same_bytes(
    members: list[JointMember], picture_draws: list[Draws], backbone: Backbone
) -> None:
    once = JointClassifier.fit(members, backbone, settings=QUICK)
    shuffled = [
        JointMember(name, SampleSet(latents.flip(0), names[::-1]))
        for name, (latents, names) in zip(NAMES, picture_draws, strict=True)
    ]
    again = JointClassifier.fit(shuffled, backbone, settings=QUICK)
    assert tensors_to_bytes(again.params) == tensors_to_bytes(once.params)
    fewer = JointClassifier.fit(members[:2], backbone, settings=QUICK)
    assert not torch.equal(fewer.params["query"], once.params["query"])


def test_members_that_make_no_classifier_are_refused(members: list[JointMember], backbone: Backbone) -> None:
    for wrong in (members[:1], [members[0], members[0]], []):
        with pytest.raises(SettingsError, match="at least two sources"):
            JointClassifier.fit(wrong, backbone)
    flat = JointMember("oak", SampleSet(members[0].samples.latents.flatten(1), members[0].samples.ids))
    with pytest.raises(SettingsError, match="encode them with it"):
        JointClassifier.fit([*members, flat], backbone)
