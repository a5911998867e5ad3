"""The analytic start: what it may cost is measured, and kept within the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from intarsia.composition import (
    CompositeDenoiser,
    Exact,
    Full,
    Prior,
    SampleSettings,
    default_prior,
    find_switch,
    sample,
)
from intarsia.composition.analytic import PROBED, step_divergence
from intarsia.composition.member import shares_of
from intarsia.diffusion import ddim_transition, time_grid
from intarsia.errors import SettingsError

from .mixtures import SCHEDULE, ExactMember, members

TIMES = time_grid(SCHEDULE, 20, "log_snr")
FINE = time_grid(SCHEDULE, 200, "log_snr")  # where many small steps use the budget up, not one


class Shifted:
    """The members' own estimates, all moved by the same vector."""

    def __init__(self, some: Sequence[ExactMember], shift: float):
        self.some, self.shift = some, shift

    def x0_hat(
        self, x_t: Tensor, alpha: Tensor, sigma: Tensor, labels: object = None, *, needed: Tensor | None = None
    ) -> Tensor:
        found = torch.stack([m.mixture.to(x_t.dtype).x0_hat(x_t, alpha, sigma) for m in self.some], dim=1) + self.shift
        return found if needed is None else found * needed[..., None]


def composed(shift: float | None) -> CompositeDenoiser:
    some = members((300, 100))
    weights = Exact([m.mixture for m in some], SCHEDULE)
    closed = None if shift is None else Shifted(some, shift)
    return CompositeDenoiser(some, default_prior(some), weights, Full(), SCHEDULE, (2,), closed_form=closed)


# Kingma et al. 2021 (VDM), eq. 13, against the divergence of the two Gaussian steps themselves
def test_the_divergence_of_a_step_is_that_of_its_gaussians() -> None:
    closed, networks = torch.tensor([[0.3, -0.2]]).double(), torch.tensor([[0.1, 0.4]]).double()
    move = ddim_transition(SCHEDULE, 0.6, 0.5, eta=1.0)
    x_t = torch.tensor([[1.0, 2.0]]).double()
    cov = move.std**2 * torch.eye(2).double()
    steps = [MultivariateNormal(move.mean(x_t, x0_hat)[0], cov) for x0_hat in (closed, networks)]
    expected = kl_divergence(*steps).item()
    assert step_divergence(SCHEDULE, 0.6, 0.5, closed, networks) == pytest.approx(expected, rel=1e-9)


def test_a_closed_form_that_is_right_goes_on_to_the_last_step_and_changes_nothing() -> None:
    switch = find_switch(composed(0.0), TIMES, budget=0.01)
    assert TIMES[-2] < switch.below < TIMES[-3]
    assert switch.nats < 1e-6
    settings = {"seed": 3, "steps": 20, "spacing": "log_snr"}
    plain = sample(composed(0.0), 8, SampleSettings(**settings), decode=lambda x: x)
    quick = sample(composed(0.0), 8, SampleSettings(**settings, analytic_start=0.01), decode=lambda x: x)
    torch.testing.assert_close(quick.images, plain.images, rtol=1e-4, atol=1e-4)
    assert quick.calls.max() == 2  # two members, at the last step only
    assert plain.calls.min() >= 20
    assert quick.report()["analytic_start"]["below"] == switch.below


def test_a_wrong_one_stays_within_the_budget() -> None:
    found = [find_switch(composed(0.2), FINE, budget=budget) for budget in (0.01, 0.1, 1.0)]
    assert found[0].below > found[1].below > found[2].below > FINE[-2]
    for switch, budget in zip(found, (0.01, 0.1, 1.0), strict=True):
        assert 0 < switch.nats <= budget
        # 2 dimensions, moved by 0.2 each at every step down to the switch
        gained = SCHEDULE.log_snr(torch.stack([FINE[switch.below > FINE][0], FINE[0]])).exp()
        assert switch.nats == pytest.approx((gained[0] - gained[1]).item() * 2 * 0.2**2 / 2, rel=1e-3)


@pytest.mark.parametrize("labels", [3, 32, 100])
def test_probes_are_of_all_kinds_of_labels(labels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more labels than probes, those at the end as well."""
    model, asked = composed(0.0), []
    told = [f"{k:03d}" for k in range(labels)]
    for member in model.members:
        monkeypatch.setattr(member, "classes", dict.fromkeys(told, 1))
        monkeypatch.setattr(member, "x0_hat", lambda x_t, t, some: asked.extend(some) or x_t)
    find_switch(replace(model, weights=Prior(shares_of(model.members))), TIMES, budget=1e-9, labels=told)
    met = sorted(map(int, set(asked)))
    assert len(met) == min(labels, PROBED)
    assert max(after - before for before, after in pairwise([-1, *met, labels])) <= -(-labels // PROBED) + 1


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(SettingsError, match="'gaussian' router part"):
        find_switch(composed(None), TIMES, budget=0.1)
    with pytest.raises(SettingsError, match="analytic_start"):
        SampleSettings(analytic_start=0.0)
