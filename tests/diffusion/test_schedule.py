from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from intarsia.diffusion import SCHEDULES, Cosine, Flow, Schedule, VPLinear, VPTable, schedule_from
from intarsia.errors import SettingsError, UnknownName

INNER = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)


def test_edges_are_exact(schedule: Schedule) -> None:
    zero = torch.zeros((), dtype=torch.float64)
    assert schedule.alpha(zero) == 1
    assert schedule.sigma(zero) == 0
    assert schedule.log_snr(zero) == math.inf


def test_pure_noise_is_exact(noise_ending: Schedule) -> None:
    one = torch.ones(())
    assert noise_ending.alpha(one) == 0
    assert noise_ending.sigma(one) == 1
    assert noise_ending.log_snr(one) == -math.inf


def test_log_snr_is_that_of_alpha_and_sigma_and_falls(schedule: Schedule) -> None:
    log_snr = schedule.log_snr(INNER)
    torch.testing.assert_close(log_snr, 2 * (schedule.alpha(INNER) / schedule.sigma(INNER)).log())
    assert (log_snr.diff() < 0).all()


@pytest.mark.parametrize("schedule", [VPLinear(), Cosine()], ids=lambda s: s.name)
def test_variance_is_preserved(schedule: Schedule) -> None:
    torch.testing.assert_close(schedule.alpha(INNER) ** 2 + schedule.sigma(INNER) ** 2, torch.ones_like(INNER))


def test_time_inverts_log_snr(schedule: Schedule) -> None:
    torch.testing.assert_close(schedule.time(schedule.log_snr(INNER)), INNER, rtol=1e-10, atol=1e-12)


def test_time_of_what_is_out_of_range_is_an_end(schedule: Schedule) -> None:
    ends = schedule.time(torch.tensor([math.inf, -math.inf], dtype=torch.float64))
    assert ends.tolist() == [0, 1]


@pytest.mark.parametrize("scaled", [False, True])
def test_vp_linear_is_the_product_of_ddpm_at_every_grid_point(scaled: bool) -> None:
    schedule = VPLinear(scaled=scaled)
    betas = np.linspace(1e-4, 0.02, 1000) if not scaled else np.linspace(1e-4**0.5, 0.02**0.5, 1000) ** 2
    alpha_bar = torch.from_numpy(np.cumprod(1 - betas))
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(schedule.alpha(t) ** 2, alpha_bar, rtol=1e-12, atol=0)
    torch.testing.assert_close(schedule.sigma(t) ** 2, 1 - alpha_bar, rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 4)])
def test_shape_and_dtype_are_those_of_t(schedule: Schedule, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    t = torch.full(shape, 0.5, dtype=dtype)
    for function in (schedule.alpha, schedule.sigma, schedule.log_snr):
        assert function(t).shape == shape
        assert function(t).dtype == dtype


def test_float32_is_float64_rounded(schedule: Schedule) -> None:
    t = INNER.float()
    assert torch.equal(schedule.sigma(t), schedule.sigma(t.double()).float())
    assert torch.equal(schedule.log_snr(t), schedule.log_snr(t.double()).float())


def test_whole_number_times_are_refused(schedule: Schedule) -> None:
    with pytest.raises(SettingsError, match=r"int64.*step n of N is n / N"):
        schedule.alpha(torch.tensor([999]))


def test_settings_survive_json(schedule: Schedule) -> None:
    again = schedule_from(json.loads(json.dumps(schedule.settings())))
    assert again == schedule
    assert again.fingerprint() == schedule.fingerprint()


def test_fingerprint_is_of_the_canonical_settings() -> None:
    assert Flow().fingerprint() == hashlib.sha256(b'{"name":"flow"}').hexdigest()
    canonical = b'{"beta_end":0.02,"beta_start":0.0001,"name":"vp_linear","scaled":false,"steps":1000}'
    assert VPLinear().fingerprint() == hashlib.sha256(canonical).hexdigest()


def test_different_processes_have_different_fingerprints() -> None:
    schedules = [VPLinear(), VPLinear(scaled=True), VPLinear(steps=500), VPLinear(beta_end=0.03), Cosine(), Flow()]
    assert len({schedule.fingerprint() for schedule in schedules}) == len(schedules)


def test_table_is_keyed_by_name() -> None:
    assert {name: kind.name for name, kind in SCHEDULES.items()} == {name: name for name in SCHEDULES}


def test_unknown_schedule_names_the_known() -> None:
    with pytest.raises(UnknownName, match=r"'cosin'.*did you mean 'cosine'.*flow, vp_linear"):
        schedule_from({"name": "cosin"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no 'name'"),
        ({"name": "flow", "steps": 10}, "'flow' has no setting steps; it has: none"),
        ({"name": "vp_linear", "beta_begin": 0.1}, "no setting beta_begin; it has: beta_start"),
        ({"name": "vp_linear", "beta_start": 0.0}, "0 < beta_start"),
        ({"name": "vp_linear", "beta_end": 1.0}, "beta_end < 1"),
        ({"name": "vp_linear", "beta_start": 0.03}, "beta_start <= beta_end"),
        ({"name": "vp_linear", "beta_start": "0.01"}, "two floats"),
        ({"name": "vp_linear", "steps": 0}, "steps is 0"),
        ({"name": "vp_linear", "steps": 10.0}, r"steps is 10\.0"),
        ({"name": "vp_linear", "scaled": 1}, "scaled is 1"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        schedule_from(settings)


def test_a_table_may_end_in_no_signal_at_all() -> None:
    end = VPTable((0.9, 0.5, 0.0)).log_snr(torch.ones((), dtype=torch.float64))
    assert end == pytest.approx(math.log(2.0**-24), abs=1e-6)


@pytest.mark.parametrize("alpha_bar", [(), (0.9, 0.95), (1.0, 0.5), (0.9, math.nan)])
def test_a_table_that_does_not_fall_is_refused(alpha_bar: tuple[float, ...]) -> None:
    with pytest.raises(SettingsError, match="all below 1 and falling"):
        VPTable(alpha_bar)
