"""The protected operator, against geometric means that are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from intarsia.composition import CompositeDenoiser, Full, Operator, Protection, SampleSettings, Uniform, protect, sample
from intarsia.composition.protected import Flock
from intarsia.diffusion import GaussianMixture
from intarsia.errors import SettingsError, UnknownName
from intarsia.experiments.reproduce.target import DRAWN, EVEN, PAIR, Target
from intarsia.routers import LabelShares

from .mixtures import SCHEDULE, ExactMember


def composed(mixtures: list[GaussianMixture]) -> CompositeDenoiser:
    members = [ExactMember(f"m{k}", each) for k, each in enumerate(mixtures)]
    prior = torch.full((len(members),), 1 / len(members), dtype=torch.float64)
    weights = Uniform([LabelShares({}, 100)] * len(members), prior.log())
    return CompositeDenoiser(members, prior, weights, Full(), SCHEDULE, (1,))


BETA = EVEN.beta


@pytest.mark.integration
def test_particles_come_from_the_geometric_mean_where_averaged_scores_do_not() -> None:
    """25,000 draws of the target itself are 0.012 away; of more, and finer steps, the test below."""
    weighed, averaged = (EVEN.flock(10, 2500, steps=100, seed=0, resample_below=below) for below in (0.7, 0.0))
    assert EVEN.of_flock(weighed) < 0.025
    assert 0.06 < EVEN.apart(averaged.x, torch.full((25_000,), 1 / 25_000)) < 0.09
    # What `sample` draws by uniform weights is the same thing.
    drawn = sample(composed(list(PAIR)), 1000, SampleSettings(steps=50, batch=1000), decode=lambda x: x).latents
    assert EVEN.apart(drawn, torch.full((1000,), 1e-3)) > 0.06


@pytest.mark.integration
def test_particles_are_within_a_hundredth_of_the_geometric_mean() -> None:
    """As `intarsia reproduce protection` tells it."""
    found = {name: draw(images, particles, 0) for name, (draw, images, particles) in DRAWN.items()}
    assert found["draws of the target"] < 0.006
    assert found["protected, 2,500 particles"] < 0.01
    assert found["naive averaging"] == pytest.approx(0.075, abs=0.005)


def test_exponents_say_how_much_each_source_counts() -> None:
    beta = torch.tensor([0.8, 0.2], dtype=torch.float64)
    uneven = Target(PAIR, beta)
    found = uneven.flock(10, 2500, steps=100, seed=0)
    assert uneven.of_flock(found) < 0.025
    assert EVEN.of_flock(found) > 0.1
    assert found.log_z.mean().item() == pytest.approx(uneven.log_z, rel=0.1)


def test_the_chosen_particle_is_drawn_by_its_weight() -> None:
    found = Flock(composed(list(PAIR)), BETA, SampleSettings(steps=1), range(400), [None] * 400, particles=3)
    found.log_w[:] = torch.tensor([0.0, 1.0, -math.inf])
    found.x = torch.arange(3.0).repeat(400)[:, None]
    counts = found.chosen()[:, 0].long().bincount(minlength=3)
    assert counts[2] == 0
    assert counts[1] / 400 == pytest.approx(math.e / (1 + math.e), abs=0.06)


def protected(**values: object) -> Operator:
    return Operator(name="protected", **values)


def test_the_bound_is_that_of_the_overlap() -> None:
    many = protected(particles=2000)
    found = protect(composed(list(PAIR)), 5, SampleSettings(steps=150), many, decode=lambda x: x)
    assert found.protection is not None
    assert list(found.bounds.values()) == pytest.approx([-2 * EVEN.log_z] * 2, rel=0.1)
    assert found.protection.ess.min() < 0.98
    same = protect(composed([PAIR[0]] * 2), 5, SampleSettings(steps=5), decode=lambda x: x)
    assert same.protection is not None
    assert max(map(abs, same.bounds.values())) < 1e-9
    assert same.protection.ess.min() > 1 - 1e-9


def test_the_bound_is_that_of_the_worst_label() -> None:
    log_z = torch.tensor([-1.0, -1.0, -3.0])
    found = Protection(particles=2, beta=BETA, ess=torch.ones(1, 3), log_z=log_z, labels=("a", "a", "b"))
    assert found.bounds.tolist() == pytest.approx([6.0, 6.0])


def test_an_image_is_the_same_in_any_batch() -> None:
    settings, few = SampleSettings(steps=5, batch=12, seed=5), protected(particles=4)
    whole = protect(composed(list(PAIR)), 7, settings, few, decode=lambda x: x)
    part = protect(composed(list(PAIR)), 2, settings, few, decode=lambda x: x, first=4)
    assert torch.allclose(whole.latents[4:6], part.latents, atol=1e-6)
    alone = replace(settings, batch_invariant=True)
    model = composed(list(PAIR))
    one, several = (protect(model, n, alone, few, decode=lambda x: x).latents for n in (1, 3))
    assert torch.equal(one[0], several[0])
    assert {rows for member in model.members for rows in member.rows_seen} == {4}
    assert whole.calls.tolist() == [5 * 4 * 2] * 7
    assert whole.protection is not None
    assert whole.protection.ess.shape == (5, 7)
    assert whole.shares.tolist() == whole.prior.tolist() == [0.5, 0.5]
    assert whole.weights.shape == (len(whole.times), 7, 2)


@pytest.mark.parametrize(
    ("mixtures", "count", "operator", "settings", "said"),
    [
        (list(PAIR[:1]), 1, protected(), SampleSettings(), "alone protects nothing"),
        (list(PAIR), 0, protected(), SampleSettings(), "ask for at least one"),
        (list(PAIR), 1, protected(exponents=(1.0, 0.0)), SampleSettings(), "expected one positive number for each"),
        (list(PAIR), 1, protected(cp_k=1.0), SampleSettings(), "without a limit, found cp_k 1; use sample_as"),
        (list(PAIR), 1, Operator(), SampleSettings(), "found operator 'mixture'"),
        (list(PAIR), 1, protected(), SampleSettings(sampler="ddim"), "sampler ddpm, found ddim"),
        (list(PAIR), 1, protected(), SampleSettings(analytic_start=1.0), "analytic_start None, found 1.0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    mixtures: list[GaussianMixture], count: int, operator: Operator, settings: SampleSettings, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        protect(composed(mixtures), count, settings, operator, decode=lambda x: x)


def test_a_label_that_a_member_would_ignore_is_refused() -> None:
    model = composed(list(PAIR))
    model.members[1].deaf = True
    object.__setattr__(model, "vocabulary", frozenset({"fox"}))
    with pytest.raises(SettingsError, match="m1 cannot be asked for it"):
        protect(model, 1, decode=lambda x: x, labels=["fox"])
    with pytest.raises(UnknownName, match="label 'fix'"):
        protect(model, 1, decode=lambda x: x, labels=["fix"])


@pytest.mark.parametrize(
    "wrong", [{"name": "average"}, {"particles": 4}, {"cp_k": -1.0}, {"tries": 0}, {"exponents": (0.5, 0.5)}]
)
def test_an_operator_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        Operator(**wrong)
