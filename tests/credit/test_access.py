"""CP-k against densities that are known: what it lets pass, how often, and what then holds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from intarsia.composition import (
    Access,
    Ancestral,
    CompositeDenoiser,
    Operator,
    Prior,
    Result,
    SampleSettings,
    operator_from,
    sample,
)
from intarsia.credit import Drawing, FlowSettings, log_ratios, sample_as
from intarsia.diffusion import Cosine, GaussianMixture, MixtureDenoiser
from intarsia.errors import SettingsError
from intarsia.routers import LabelShares

SCHEDULE, STD, SETTINGS = Cosine(), 0.3, SampleSettings(steps=15, batch=512)


class Known:
    """A source that is a Gaussian mixture on a line."""

    count, classes = 100, {}

    def __init__(self, name: str, *means: float):
        self.name, n = name, len(means)
        centre = torch.tensor(means, dtype=torch.float64)[:, None]
        self.mixture = GaussianMixture.from_moments(
            torch.full((n,), 1 / n, dtype=torch.float64), centre, torch.full((n, 1, 1), STD**2).double()
        )

    def conditions(self, label: str) -> bool:
        return False

    def x0_hat(self, x_t: Tensor, t: Tensor, labels: object) -> Tensor:
        return MixtureDenoiser(SCHEDULE, self.mixture.to(x_t.dtype))(x_t, t)

    def log_q(self, x: Tensor) -> Tensor:
        """Of the mode with the noise of the flow's first level."""
        one = torch.ones(len(x), dtype=torch.float64)
        return self.mixture.log_prob(x.double(), one, math.exp(-4) * one)


# The second source has a mode, at 3, that the first has not: its secret.
PAIR = (Known("common", -1.0, 1.0), Known("secret", -1.0, 1.0, 3.0))
EVEN = torch.tensor([0.5, 0.5], dtype=torch.float64)
MODEL = CompositeDenoiser(PAIR, EVEN, Prior([LabelShares({}, 100)] * 2), Ancestral(), SCHEDULE, (1,))


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a line the divergence is had exactly, at the cost of one probe."""
    monkeypatch.setattr("intarsia.credit.access.FLOW", FlowSettings(steps=20, probes=None))


def drawn(count: int, settings: SampleSettings, operator: Operator, *, first: int = 0) -> Result:
    return sample_as(Drawing(MODEL, settings, operator, lambda x: x), count, first=first)


def test_ratios_are_those_of_the_densities() -> None:
    x = torch.linspace(-2, 3.2, 30)[:, None]
    log_q = torch.stack([member.log_q(x) for member in PAIR], dim=1)
    mixture = (log_q + EVEN.log()).logsumexp(dim=1, keepdim=True) - log_q
    assert torch.allclose(log_ratios(MODEL, x, None, Operator()), mixture, atol=0.02, rtol=0.02)
    product = log_q.mean(dim=1, keepdim=True) - log_q
    assert torch.allclose(log_ratios(MODEL, x, None, operator_from("protected")), product, atol=0.02, rtol=0.02)


def test_a_prompt_that_weighs_the_sources_weighs_them_in_the_ratios() -> None:
    x, told = torch.linspace(-2, 3.2, 30)[:, None], torch.tensor([[2.0, 0.0]])
    log_q = torch.stack([member.log_q(x) for member in PAIR], dim=1)
    mixture = (log_q + told.double().log_softmax(dim=1)).logsumexp(dim=1, keepdim=True) - log_q
    model = replace(MODEL, told=lambda asked: told.expand(len(asked), 2))
    assert torch.allclose(log_ratios(model, x, None, Operator()), mixture, atol=0.02, rtol=0.02)


def test_what_one_source_alone_explains_is_drawn_again() -> None:
    free = sample(MODEL, 240, SETTINGS, decode=lambda x: x)
    assert 0.1 < (free.latents > 2).float().mean() < 0.25  # a sixth is the secret
    within = drawn(240, SETTINGS, Operator(cp_k=2.0, tries=10))
    access = within.access
    assert access is not None
    assert not bool((within.latents > 2).any())
    assert access.ratios.max() <= 2
    kept = (free.latents < 2)[:, 0]
    assert torch.equal(within.latents[kept], free.latents[kept])  # what passes at once is what was drawn without it
    assert set(access.tried[kept].tolist()) == {1}
    assert access.acceptance == pytest.approx(5 / 6, abs=0.06)
    assert access.bound == pytest.approx(2 - math.log(access.acceptance))
    assert int(within.calls.min()) > int(free.calls.max())


def test_an_image_does_not_depend_on_the_others() -> None:
    limit = Operator(cp_k=2.0, tries=10)
    whole = drawn(16, SETTINGS, limit)
    part = drawn(5, SETTINGS, limit, first=8)
    assert torch.allclose(whole.latents[8:13], part.latents, atol=1e-6)


def test_an_image_without_a_candidate_is_said_and_nothing_is_given() -> None:
    with pytest.raises(SettingsError, match=r"have no candidate within cp_k 0\.001 in 2 tries .* raise cp_k"):
        drawn(6, SETTINGS, Operator(cp_k=0.001, tries=2))


def test_protected_images_are_limited_too() -> None:
    few = Operator(name="protected", particles=2, cp_k=2.0)
    found = drawn(60, replace(SETTINGS, steps=10), few)
    assert found.access is not None
    assert found.protection is not None
    assert not bool((found.latents > 2).any())
    assert found.access.bound > 2 - found.protection.least_log_z - 1e-9


def test_a_bound_is_that_of_the_worst_label() -> None:
    tried = torch.tensor([1, 1, 1, 3])
    found = Access(2.0, tried, torch.zeros(4, 2), ("a", "a", "b", "b"))
    assert found.acceptance == 0.5  # two of four under b, two of two under a
    assert found.bound == pytest.approx(2 + math.log(2))
