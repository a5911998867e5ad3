"""The composed model against ground truth: exact mixtures, where every weight and every score is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from intarsia.composition import (
    ROUTINGS,
    Ancestral,
    CompositeDenoiser,
    Exact,
    Full,
    Posterior,
    Prior,
    Random,
    SampleSettings,
    Threshold,
    TopK,
    Uniform,
    default_prior,
    sample,
)
from intarsia.composition.member import shares_of
from intarsia.composition.routing import Routing
from intarsia.composition.weights import Evidence, Weights
from intarsia.diffusion import MixtureDenoiser, joint
from intarsia.errors import SettingsError, UnknownName

from .mixtures import SCHEDULE, ExactMember, members, mixture


def composed(some: list[ExactMember], routing: Routing, weights: str = "exact") -> CompositeDenoiser:
    prior = default_prior(some)
    kinds: dict[str, Weights] = {
        "exact": Exact([m.mixture for m in some], SCHEDULE),
        "prior": Prior(shares_of(some)),
        "uniform": Uniform(shares_of(some), prior.log()),
    }
    return CompositeDenoiser(some, prior, kinds[weights], routing, SCHEDULE, (2,))


def draw(model: CompositeDenoiser, count: int, **settings: Any) -> Tensor:
    chosen: dict[str, Any] = {"batch": 1000, "spacing": "log_snr"} | settings
    return sample(model, count, SampleSettings(**chosen), decode=lambda x: x).images


# Proposition 3.1 of the paper
def test_the_composition_is_the_model_of_the_mixture() -> None:
    some = members((300, 100))
    whole = MixtureDenoiser(SCHEDULE, joint([m.mixture for m in some], default_prior(some)))
    for t in (0.05, 0.3, 0.6, 0.9, 1.0):
        x_t = torch.randn(50, 2, dtype=torch.float64) * 2
        times = torch.full((50,), t, dtype=torch.float64)
        ours = composed(some, Full()).run(range(50))(x_t, times)
        torch.testing.assert_close(ours, whole(x_t, times), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("routing", [kind() for kind in ROUTINGS.values()], ids=lambda r: r.name)
def test_one_member_alone_is_the_member(routing: Routing) -> None:
    alone = members()[:1]
    x_t, t = torch.randn(7, 2, dtype=torch.float64), torch.full((7,), 0.4, dtype=torch.float64)
    assert torch.equal(composed(alone, routing).run(range(7))(x_t, t), alone[0].x0_hat(x_t, t, [None] * 7))


class Loud(Evidence):
    """Weights that must not be asked."""

    name, isolated, passes, follows_path = "loud", True, 1.0, False

    def start(self) -> Loud:
        return self

    def __call__(self, x_t: Tensor, t: Tensor, labels: Sequence[str | None]) -> Tensor:
        raise AssertionError("one member has no weights")


@pytest.mark.parametrize("routing", [Full(), TopK(1), Threshold()], ids=lambda r: r.name)
def test_one_member_pays_for_no_weights(routing: Routing) -> None:
    (alone,) = members()[:1]
    run = CompositeDenoiser([alone], torch.ones(1), Loud(), routing, SCHEDULE, (2,)).run(range(3))
    run(torch.randn(3, 2), torch.full((3,), 0.4))
    assert (run.router_passes, run.calls.tolist()) == (0, [1, 1, 1])


@pytest.mark.parametrize("routing", [TopK(2), Threshold(0.0)], ids=lambda r: r.name)
def test_pruned_is_full_when_nothing_is_pruned(routing: Routing) -> None:
    some = members()
    x_t, t = torch.randn(9, 2, dtype=torch.float64), torch.full((9,), 0.7, dtype=torch.float64)
    full, pruned = (composed(some, r).run(range(9))(x_t, t) for r in (Full(), routing))
    assert torch.equal(full, pruned)


def test_members_run_only_for_the_images_that_need_them() -> None:
    some = members()
    model = composed(some, Threshold())
    run = model.run(range(4))
    x_t = torch.tensor([[-2.0, -2.0], [2.0, 2.0], [2.1, 2.0], [0.3, 0.3]], dtype=torch.float64)
    run(x_t, torch.full((4,), 0.1, dtype=torch.float64))
    assert [m.rows_seen for m in some] == [[2], [3]]
    assert run.calls.tolist() == [1, 1, 1, 2]


def test_samples_have_the_prior_as_shares_and_naive_averaging_has_not_the_modes() -> None:
    some = members((300, 100))
    right_modes = mixture(-2.0, 0.0, 0.5, 2.0).mean[:, 0]

    def masses(x: Tensor) -> Tensor:
        near = (x.double().mean(dim=1, keepdim=True) - right_modes).abs()
        return torch.bincount(near.argmin(dim=1), minlength=4) / len(x)

    def error(routing: Routing, weights: str) -> float:
        # A sampler of second order without noise between its steps: fewer steps and draws than ddpm, a smaller error.
        x = draw(composed(some, routing, weights), 2000, sampler="dpmpp_2m", steps=24)
        return 0.5 * (masses(x) - truth).abs().sum().item()

    truth = torch.tensor([0.375, 0.375, 0.125, 0.125])
    assert max(error(Full(), "exact"), error(Threshold(), "exact"), error(Ancestral(), "prior")) < 0.03
    assert error(Full(), "uniform") > 0.15


def test_an_image_does_not_depend_on_its_batch() -> None:
    for routing in (kind() for kind in ROUTINGS.values()):
        model = composed(members((300, 100)), routing)
        twelve = draw(model, 12, batch=5, seed=7, steps=8)
        alone = sample(model, 1, SampleSettings(steps=8, seed=7, spacing="log_snr"), decode=lambda x: x, first=9).images
        torch.testing.assert_close(twelve[9:10], alone, rtol=1e-5, atol=1e-6)
        exactly = draw(model, 12, seed=7, steps=8, batch_invariant=True)
        fewer = sample(
            model,
            3,
            SampleSettings(steps=8, seed=7, spacing="log_snr", batch_invariant=True),
            decode=lambda x: x,
            first=9,
        ).images
        assert torch.equal(exactly[9:12], fewer)


@pytest.mark.parametrize("weights", ["exact", "uniform"])
def test_an_image_does_not_depend_on_the_order_of_the_sources(weights: str) -> None:
    """Lots and ties least of all."""
    for routing in (kind() for kind in ROUTINGS.values()):
        some = [*members((300, 100)), ExactMember("middle", mixture(0.0), 200)]
        listed, turned = (composed(order, routing, weights) for order in (some, some[::-1]))
        settings = SampleSettings(steps=8, seed=7)
        mine, theirs = (sample(model, 12, settings, decode=lambda x: x) for model in (listed, turned))
        torch.testing.assert_close(mine.images, theirs.images, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.weights, theirs.weights.flip(2), rtol=1e-4, atol=1e-5)
        assert mine.names == theirs.names[::-1] == ("left", "right", "middle")


def test_labels_decide_who_may_take_part() -> None:
    some = members()
    some[0].classes, some[1].classes = {"cat": 60, "dog": 40}, {"dog": 20, "owl": 80}
    run = composed(some, Full(), "prior").run(range(4), labels=["cat", "dog", "owl", None])
    run(torch.zeros(4, 2, dtype=torch.float64), torch.full((4,), 0.5, dtype=torch.float64))
    assert run.trace[0].tolist() == [[1, 0], pytest.approx([2 / 3, 1 / 3]), [0, 1], [0.5, 0.5]]
    with pytest.raises(UnknownName, match="unknown label 'cow'"):
        composed(some, Full(), "prior").run(range(1), labels=["cow"])


def test_a_label_that_a_member_would_ignore_is_refused() -> None:
    some = members()
    some[0].classes, some[1].classes = {"cat": 60, "dog": 40}, {"dog": 20, "owl": 80}
    some[0].deaf = True
    model = replace(composed(some, Full(), "prior"), vocabulary=frozenset({"newt"}))
    for label in ("cat", "dog", "newt"):
        with pytest.raises(SettingsError, match=f"label '{label}': left cannot be asked for it") as caught:
            model.run(range(2), labels=["owl", label])
        assert f"sources that can: {'none' if label == 'cat' else 'right'}" in str(caught.value)
    run = model.run(range(1), labels=["owl"])
    run(torch.zeros(1, 2, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64))
    assert run.trace[0].tolist() == [[0, 1]], "a source that never had the label takes no part and need not know it"


def test_a_label_that_only_the_backbone_knows_says_nothing_about_the_sources() -> None:
    some = members((300, 100))
    some[0].classes, some[1].classes = {"cat": 300}, {"owl": 100}
    model = replace(composed(some, Full()), vocabulary=frozenset({"newt", "cat"}))
    x_t, t = torch.randn(6, 2, dtype=torch.float64), torch.full((6,), 0.5, dtype=torch.float64)
    labelled, plain = model.run(range(6), labels=["newt"] * 6), model.run(range(6))
    shown, unlabelled = labelled(x_t, t), plain(x_t, t)
    torch.testing.assert_close(labelled.trace[0], plain.trace[0])
    torch.testing.assert_close(shown, unlabelled + 1, msg="the members' networks see the label all the same")
    with pytest.raises(UnknownName, match="did you mean 'newt'"):
        model.run(range(1), labels=["newtt"])


def test_naive_averaging_ignores_prior_and_image() -> None:
    some = members((900, 100))
    run = composed(some, Full(), "uniform").run(range(3))
    run(torch.randn(3, 2, dtype=torch.float64), torch.full((3,), 0.2, dtype=torch.float64))
    torch.testing.assert_close(run.trace[0], torch.full((3, 2), 0.5, dtype=torch.float64))


# Both branches composed with their own weights, then null + scale (conditional - null)
def test_guidance_is_applied_to_composed_branches() -> None:
    some = members()
    for member, classes in zip(some, ({"cat": 100}, {"owl": 100}), strict=True):
        member.classes = classes
    model = composed(some, Full(), "prior")
    x_t, t = torch.randn(2, 2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)
    guided = model.run(range(2), labels=["cat", "owl"], guidance_scale=3.0)
    conditional = model.run(range(2), labels=["cat", "owl"])(x_t, t)
    null = model.run(range(2))(x_t, t)
    torch.testing.assert_close(guided(x_t, t), null + 3 * (conditional - null))
    assert guided.calls.tolist() == [3, 3], "one conditional call and two null calls per image"
    with pytest.raises(SettingsError, match="needs a label or a prompt for every image"):
        model.run(range(2), labels=["cat", None], guidance_scale=3.0)


def test_at_a_guidance_of_0_the_branch_that_makes_the_image_is_the_one_that_is_told() -> None:
    """Shares of the other branch would credit sources for words that changed nothing."""
    some = members()
    some[0].classes, some[1].classes = {"cat": 90, "owl": 10}, {"cat": 5, "owl": 95}
    model = composed(some, Full(), "prior")
    x_t, t = torch.randn(2, 2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)
    null, guided = model.run(range(2)), model.run(range(2), labels=["cat", "owl"], guidance_scale=0.0)
    torch.testing.assert_close(guided(x_t, t), null(x_t, t), rtol=0, atol=0)
    torch.testing.assert_close(guided.trace[0], null.trace[0], rtol=0, atol=0)
    assert guided.calls.tolist() == null.calls.tolist()


@pytest.mark.parametrize("routing", [Ancestral(), Random()], ids=lambda r: r.name)
def test_guidance_stays_with_the_member_that_was_drawn(routing: Routing) -> None:
    """Drawn anew for the null branch, the difference of the branches would be that of two sources."""
    some = members()
    some[0].classes, some[1].classes = {"cat": 90, "owl": 10}, {"cat": 5, "owl": 95}
    run = composed(some, routing, "prior").run(range(200), seed=3, labels=["cat"] * 200, guidance_scale=2.0)
    x_t, t = torch.randn(200, 2, dtype=torch.float64), torch.full((200,), 0.5, dtype=torch.float64)
    shown = run(x_t, t)
    of_each = torch.stack([2 * m.x0_hat(x_t, t, ["cat"] * 200) - m.x0_hat(x_t, t, [None] * 200) for m in some], dim=1)
    torch.testing.assert_close(shown, (run.trace[0][:, :, None] * of_each).sum(dim=1))
    assert run.trace[0][:, 0].mean().item() == pytest.approx(90 / 95, abs=0.06), "drawn under the label"


def test_a_member_is_drawn_once_in_a_step() -> None:
    """Heun calls twice: both slopes of a step must be those of one member."""
    run = composed(members(), Random()).run(range(64), calls_per_step=2)
    for t in (0.9, 0.6, 0.6, 0.3, 0.3):
        run(torch.randn(64, 2), torch.full((64,), t))
    first, second, third, fourth, fifth = run.trace
    same = [torch.equal(*pair) for pair in ((first, second), (second, third), (third, fourth), (fourth, fifth))]
    assert same == [True, False, True, False]
    drawn: list[list[Tensor]] = []
    for sampler in ("heun", "ddpm"):
        model = composed(members(), Random())
        drawn.append(list(sample(model, 64, SampleSettings(steps=5, sampler=sampler), decode=lambda x: x).weights))
    assert torch.equal(drawn[0][0], drawn[1][0]), "the draw of a step does not depend on the sampler"
    assert torch.equal(drawn[0][-1], drawn[1][-1])
    posterior = composed(members(), Posterior()).run(range(64), calls_per_step=2)
    for t in (0.9, 0.2):
        posterior(torch.randn(64, 2), torch.full((64,), t))
    assert torch.equal(*posterior.trace), "also where the weights have changed within the step"


def test_a_member_drawn_by_its_weight_makes_exact_steps_of_the_mixture() -> None:
    """Sources of one point each: drawn by weight, every step is exact, however few; averages end between the points."""
    points = [
        ExactMember(name, mixture(at, std=0.01), count) for name, at, count in (("a", -0.4, 300), ("b", 0.4, 100))
    ]
    settings = SampleSettings(steps=3, batch=2000)

    def near(routing: Routing) -> Tensor:
        result = sample(composed(points, routing), 2000, settings, decode=lambda x: x)
        assert result.calls.double().mean() == (3 if routing.draws else 6)
        x = result.images.double().mean(dim=1)
        return torch.stack([((x - at).abs() < 0.05).double().mean() for at in (-0.4, 0.4)])

    torch.testing.assert_close(near(Posterior()), torch.tensor([0.75, 0.25]).double(), atol=0.03, rtol=0)
    assert near(Full()).sum() < 0.8


def test_ddim_at_eta_1_is_ddpm() -> None:
    model = composed(members(), Full())
    assert torch.equal(draw(model, 4, sampler="ddim", eta=1.0, steps=5), draw(model, 4, sampler="ddpm", steps=5))


def test_the_result_says_what_was_realised() -> None:
    model = composed(members((300, 100)), Threshold())
    result = sample(model, 50, SampleSettings(steps=12, batch=20), decode=lambda x: x)
    assert result.weights.shape == (12, 50, 2)
    assert result.times[0] == 1
    torch.testing.assert_close(
        result.weights[0].double(), default_prior(model.members).expand(50, 2), atol=1e-6, rtol=0
    )
    assert result.shares.sum().item() == pytest.approx(1)
    assert bool(((result.calls >= 12) & (result.calls <= 24)).all())
    assert result.report()["sources"]["left"]["prior"] == 0.75
    heun = sample(model, 3, SampleSettings(steps=12, sampler="heun"), decode=lambda x: x)
    assert heun.weights.shape == (12, 3, 2), "one entry per step, also where a step calls twice"


def test_bad_compositions_are_named() -> None:
    some = members()
    with pytest.raises(SettingsError, match="at least one source"):
        CompositeDenoiser([], torch.ones(0), Prior([]), Full(), SCHEDULE, (2,))
    with pytest.raises(SettingsError, match="each source once, found left, left"):
        composed([some[0], some[0]], Full(), "prior")
    with pytest.raises(SettingsError, match="summing to 1"):
        CompositeDenoiser(some, torch.tensor([0.5, 0.6]), Prior(shares_of(some)), Full(), SCHEDULE, (2,))
    with pytest.raises(SettingsError, match="2 labels or prompts for 3 images"):
        sample(composed(some, Full()), 3, SampleSettings(), decode=lambda x: x, labels=["a", "b"])
    with pytest.raises(SettingsError, match="label 3 is no text; give '3'"):
        sample(composed(some, Full()), 1, SampleSettings(), decode=lambda x: x, labels=[3])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sampler": "dimm"}, "did you mean 'ddim'"),
        ({"spacing": "log"}, "unknown time spacing 'log'"),
        ({"steps": 0}, "steps is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"eta": 1.5, "sampler": "ddim"}, "eta is 1.5, expected a finite number, at least 0 and at most 1"),
        ({"eta": 0.5}, "sampler 'ddpm' takes no eta, found 0.5"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan, expected a finite number"),
        ({"guidance_scale": 1e30}, "at most 100"),
    ],
)
def test_every_setting_of_sampling_is_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SampleSettings(**wrong)
