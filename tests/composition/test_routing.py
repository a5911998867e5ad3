"""Routing: realised weights are weights, and each rule does what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from intarsia.composition import (
    ROUTINGS,
    Ancestral,
    CompositeDenoiser,
    Full,
    Posterior,
    Random,
    SampleSettings,
    Sticky,
    Threshold,
    TopK,
    routing_from,
    sample,
)
from intarsia.composition.routing import Turn, drawn
from intarsia.composition.weights import Exact
from intarsia.errors import SettingsError, UnknownName

from .mixtures import SCHEDULE, ExactMember, mixture


def turn(rows: int, call: int = 0, seed: int = 0, first: int = 0) -> Turn:
    return Turn(seed, range(first, first + rows), call)


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    rows, sources = draw(st.integers(1, 6)), draw(st.integers(1, 130))
    logits = torch.randn(rows, sources, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**30)))) * draw(
        st.sampled_from([0, 1, 20])
    )
    return logits.double().softmax(dim=1)


@given(weights(), st.sampled_from([*ROUTINGS, "top_k:2", "threshold:0.3"]))
def test_rows_sum_to_one_and_stay_positive(w: Tensor, name: str) -> None:
    realised = routing_from(name)(w, w, turn(len(w)))
    assert realised.shape == w.shape
    assert bool((realised >= 0).all())
    torch.testing.assert_close(realised.sum(dim=1), torch.ones(len(w), dtype=torch.float64))


def test_each_rule_keeps_what_it_says() -> None:
    w = torch.tensor([[0.5, 0.3, 0.195, 0.005], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    prior = torch.full_like(w, 0.25)
    assert torch.equal(Full()(w, prior, turn(2)), w)
    assert TopK(2)(w, prior, turn(2))[0].tolist() == pytest.approx([0.625, 0.375, 0, 0])
    assert Threshold(0.01)(w, prior, turn(2))[0].tolist() == pytest.approx([0.5 / 0.995, 0.3 / 0.995, 0.195 / 0.995, 0])
    assert Threshold(0.4)(w, prior, turn(2))[1].tolist() == [0.25] * 4, "with all below the threshold the largest stay"


def test_the_usual_threshold_leaves_nobody_out_whom_nothing_speaks_against() -> None:
    """Neither one of 200 equal sources nor a small one beside a large one."""
    for prior in (torch.full((1, 200), 1 / 200), torch.tensor([[0.996, 0.004]])):
        assert torch.equal(Threshold()(prior, prior, turn(1)), prior)
        assert (Threshold(0.01)(prior, prior, turn(1)) == prior).all() == (len(prior[0]) == 200), "ties, or the largest"
    nearly = torch.full((1, 200), 1 / 200).index_fill(1, torch.tensor([7]), 0.006)
    assert Threshold(0.01)(nearly, nearly, turn(1)).count_nonzero() == 1, "what the number would do"
    assert Threshold()(nearly, nearly, turn(1)).count_nonzero() == 200
    usual = torch.tensor([[0.5, 0.3, 0.195, 0.005]])
    even = torch.full_like(usual, 0.25)
    assert torch.equal(Threshold()(usual, even, turn(1)), Threshold(0.01)(usual, even, turn(1)))


def test_draws_follow_the_prior_and_stay_with_their_image() -> None:
    prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).expand(4000, 3)
    for rule in (Ancestral(), Random()):
        shares = rule(prior, prior, turn(4000)).mean(dim=0)
        torch.testing.assert_close(shares, prior[0], atol=0.03, rtol=0)
    first, later = (Ancestral()(prior, prior, turn(4000, call)) for call in (0, 5))
    assert torch.equal(first, later), "ancestral draws once"
    assert not torch.equal(*(Random()(prior, prior, turn(4000, call)) for call in (0, 5)))
    alone = Random()(prior[:1], prior[:1], turn(1, call=5, first=17))
    assert torch.equal(alone[0], Random()(prior, prior, turn(4000, call=5))[17]), "a draw does not depend on the batch"


def test_posterior_draws_follow_the_weights() -> None:
    w = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64).repeat(2000, 1)
    prior = torch.full_like(w, 0.5)
    shares = Posterior()(w, prior, turn(4000)).unflatten(0, (2000, 2)).mean(dim=0)
    torch.testing.assert_close(shares, w[:2], atol=0.03, rtol=0)
    assert not torch.equal(*(Posterior()(w, prior, turn(4000, call)) for call in (0, 5)))


def test_drawn_takes_the_interval_of_the_number() -> None:
    p = torch.tensor([[0.2, 0.0, 0.8]] * 4, dtype=torch.float64)
    assert drawn(p, torch.tensor([0.0, 0.19, 0.21, 0.999999], dtype=torch.float64)).argmax(dim=1).tolist() == [
        0,
        0,
        2,
        2,
    ]


def test_names() -> None:
    assert {routing_from(name).name for name in ROUTINGS} == set(ROUTINGS)
    with pytest.raises(UnknownName, match="did you mean 'threshold'"):
        routing_from("treshold")
    for wrong, said in (("top_k:1.5", "'1.5' is not a whole number"), ("threshold:x", "'x' is not a number")):
        with pytest.raises(SettingsError, match=said):
            routing_from(wrong)
    for empty in ("top_k:", "threshold:", "sticky:", "full:"):  # an empty variable of a shell
        with pytest.raises(SettingsError):
            routing_from(empty)
    with pytest.raises(SettingsError, match="takes no number"):
        routing_from("full:2")
    with pytest.raises(SettingsError, match="k of top_k is 0, expected a whole number, at least 1"):
        TopK(0)
    with pytest.raises(SettingsError, match=r"threshold is 0.7, expected a finite number, at least 0 and at most 0.5"):
        Threshold(0.7)


def test_a_sticky_source_stays_until_its_weight_is_gone() -> None:
    w = torch.tensor([0.6, 0.39, 0.01], dtype=torch.float64).expand(4000, 3)
    first = Sticky(0.05)(w, w, turn(4000))
    assert torch.allclose(first.mean(dim=0), w[0], atol=0.03)
    later = Sticky(0.05)(w, w, Turn(0, range(4000), 1, previous=first))
    stayed = (later * first).sum(dim=1).bool()
    was = first.argmax(dim=1)
    assert bool(stayed[was < 2].all())
    anew = later[was == 2].mean(dim=0)
    assert anew[0] > anew[1] > anew[2]
    assert torch.equal(Sticky(0.0)(w, w, Turn(0, range(4000), 1, previous=first)), first)


def test_a_run_tells_the_routing_what_it_realised_before() -> None:
    """Sources that overlap wholly: nothing tells them apart, so the first draw stays."""
    both = [ExactMember(name, mixture(0.0)) for name in ("one", "two")]
    prior = torch.tensor([0.5, 0.5], dtype=torch.float64)
    weights = Exact([member.mixture for member in both], SCHEDULE)
    model = CompositeDenoiser(both, prior, weights, Sticky(), SCHEDULE, (2,))
    result = sample(model, 40, SampleSettings(steps=6), decode=lambda x: x)
    assert torch.equal(result.weights, result.weights[:1].expand_as(result.weights))
    assert 10 < result.weights[0, :, 0].sum() < 30
    assert result.calls.eq(6).all()
    redrawn = sample(replace(model, routing=Posterior()), 40, SampleSettings(steps=6), decode=lambda x: x).weights
    assert not torch.equal(redrawn, redrawn[:1].expand_as(redrawn))
