"""Private training: who is drawn, what is clipped, which noise, and what the accountant says of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from intarsia.compartments import Mechanism, Privacy, PrivateSteps, SecretNoise, TrainData, Trainee, train
from intarsia.compartments.accounting import epsilon_spent, mechanism_for
from intarsia.compartments.adapters import DeepPrompts, FullCopy, Kind, Lora, Parallel
from intarsia.errors import CorruptError, SettingsError
from intarsia.files import tensors_to_bytes

from .helpers import TEXT, quick, tiny_backbone, toy_data

KEY = bytes(range(32))
PRIVACY = Privacy(epsilon=8, clip=0.1, draws=2, microbatch=3)
MECHANISM = Mechanism(size=12, rate=0.4, steps=6, noise_multiplier=1.5)


class Fixed:
    """Noise that a test chooses: who is drawn in each step, and what is added."""

    def __init__(self, drawn: Sequence[int], added: float = 0.0):
        self.chosen, self.added = drawn, added

    def uniform(self, count: int, /, *purpose: str | int) -> np.ndarray:
        return np.array([0.0 if k in self.chosen else 1.0 for k in range(count)])

    def normal(self, shape: Sequence[int], /, *purpose: str | int) -> Tensor:
        return torch.full(tuple(shape), self.added)


def private(
    kind: Kind,
    noise: Any,
    *,
    data: TrainData | None = None,
    folder: Path | None = None,
    privacy: Privacy = PRIVACY,
    **changes: Any,
) -> Trainee:
    settings = quick(kind, privacy=privacy, **changes)
    steps = PrivateSteps(privacy, MECHANISM, noise)
    return Trainee(tiny_backbone(), data or toy_data("oak"), settings, folder, private=steps)


def gradients(trainee: Trainee) -> dict[str, Tensor]:
    assert trainee.private is not None
    return trainee.private.gradients(trainee)[0]


KINDS = [Lora(rank=2), DeepPrompts(tokens=2, per_class=True), Parallel(width=3), TEXT]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_step_is_the_sum_of_clipped_gradients_and_noise_over_the_expected_number(kind: Kind) -> None:
    drawn, noise = [0, 3, 4, 7, 9], 0.25
    found = gradients(private(kind, Fixed(drawn, noise)))
    total = {name: torch.full_like(g, MECHANISM.noise_multiplier * PRIVACY.clip * noise) for name, g in found.items()}
    for place in drawn:
        alone = {name: g * MECHANISM.expected for name, g in gradients(private(kind, Fixed([place]))).items()}
        norm = math.sqrt(sum(g.square().sum().item() for g in alone.values()))
        assert norm == pytest.approx(PRIVACY.clip, rel=1e-4), "otherwise nothing is clipped"
        for name, g in alone.items():
            total[name] += g
    for name, g in found.items():
        torch.testing.assert_close(g, total[name] / MECHANISM.expected, rtol=1e-4, atol=1e-6)


def test_blocks_of_images_are_the_same_sum() -> None:
    whole = gradients(private(Lora(rank=2), Fixed(range(12)), privacy=replace(PRIVACY, microbatch=12)))
    for name, g in gradients(private(Lora(rank=2), Fixed(range(12)), privacy=replace(PRIVACY, microbatch=5))).items():
        torch.testing.assert_close(g, whole[name], rtol=1e-4, atol=1e-6)


def test_a_step_without_images_is_noise_alone_and_tables_of_absent_classes_get_it_too() -> None:
    trainee = private(DeepPrompts(tokens=2, per_class=True), SecretNoise(KEY))
    trainee.private = replace(trainee.private, mechanism=replace(MECHANISM, rate=1e-9))
    before = {name: p.clone() for name, p in trainee.params.items()}
    first = gradients(trainee)
    for name, g in first.items():
        assert g.shape[0] == 3
        assert bool((g.flatten(1).abs().amax(dim=1) > 0).all()), f"{name}: a set without noise tells who is there"
    assert trainee.step().loss is None
    assert all(not torch.equal(p, before[name]) for name, p in trainee.params.items())
    assert all(not torch.equal(g, first[name]) for name, g in gradients(trainee).items()), "noise of another step"


def test_every_image_is_drawn_on_its_own_with_the_same_probability() -> None:
    steps = PrivateSteps(PRIVACY, MECHANISM, SecretNoise(KEY))
    hits = np.zeros((400, 50))
    for step in range(400):
        hits[step, steps.drawn(step, 50)] = 1
    assert stats.binomtest(int(hits.sum()), hits.size, MECHANISM.rate).pvalue > 1e-3
    sizes = hits.sum(1)  # a fixed size, or all or none, would have another variance
    assert sizes.var(ddof=1) == pytest.approx(50 * 0.4 * 0.6, rel=0.35)
    assert np.abs(np.corrcoef(hits.T) - np.eye(50)).max() < 0.25


def test_noise_is_normal_independent_and_a_function_of_key_and_purpose() -> None:
    one, other = SecretNoise(KEY), SecretNoise(KEY[::-1])
    x, y = one.normal((20001,), "step", 0, "a"), one.normal((20001,), "step", 1, "a")
    assert stats.kstest(x.numpy(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.03
    assert abs(np.corrcoef(x, other.normal((20001,), "step", 0, "a"))[0, 1]) < 0.03
    assert torch.equal(x, SecretNoise(KEY).normal((20001,), "step", 0, "a"))
    assert SecretNoise.generate().name != SecretNoise.generate().name
    assert KEY.hex() not in repr(PrivateSteps(PRIVACY, MECHANISM, one)) + one.name


@pytest.mark.parametrize("stop", [1, 4])
def test_a_resumed_training_adds_the_same_noise(stop: int, tmp_path: Path) -> None:
    whole = private(Lora(rank=2), SecretNoise(KEY))
    list(train([whole]))
    for step in train([private(Lora(rank=2), SecretNoise(KEY), folder=tmp_path)], save_every=2):
        if step.step == stop:
            break
    resumed = private(Lora(rank=2), SecretNoise(KEY), folder=tmp_path)
    assert resumed.restore() == (stop >= 2)
    list(train([resumed]))
    assert tensors_to_bytes(resumed.average) == tensors_to_bytes(whole.average)
    fresh = private(Lora(rank=2), SecretNoise.generate())
    list(train([fresh]))
    assert tensors_to_bytes(fresh.average) != tensors_to_bytes(whole.average)


def test_a_key_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    SecretNoise(KEY).write(tmp_path)
    path = tmp_path / "noise.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert SecretNoise.read(tmp_path).name == SecretNoise(KEY).name
    path.write_bytes(KEY[:-1])
    with pytest.raises(CorruptError, match="31 bytes"):
        SecretNoise.read(tmp_path)
    path.unlink()
    with pytest.raises(CorruptError, match="train it afresh"):
        SecretNoise.read(tmp_path)


# Gopi et al. 2021 as in Opacus, whose own tests expect 6.7774, an upper end that may err by 0.01, for q = 0.04,
# sigma = 1.5, 2249 steps, delta = 1e-5. Abadi et al. 2016: q = 0.01, sigma = 4, T = 10000, delta = 1e-5: at most 1.26
# (moments accountant, not tight). Balle and Wang 2018, one Gaussian: delta = Phi(1/2s - e s) - exp(e) Phi(-1/2s - e s).
def test_the_accountant_agrees_with_published_values() -> None:
    opacus = Mechanism(size=100, rate=0.04, steps=2249, noise_multiplier=1.5)
    assert epsilon_spent([opacus], 1e-5) == pytest.approx(6.7774 - 0.01, abs=0.002)
    abadi = Mechanism(size=60000, rate=0.01, steps=10000, noise_multiplier=4)
    assert 0.9 < epsilon_spent([abadi], 1e-5) <= 1.26
    s, eps = 1.3, 2.0
    delta = stats.norm.cdf(1 / (2 * s) - eps * s) - math.exp(eps) * stats.norm.cdf(-1 / (2 * s) - eps * s)
    gaussian = Mechanism(size=10, rate=1.0, steps=1, noise_multiplier=s)
    assert epsilon_spent([gaussian], delta) == pytest.approx(eps, abs=2e-3)


def test_the_noise_spends_what_was_asked_for_and_the_router_part_is_in_it() -> None:
    privacy = Privacy(epsilon=3, delta=1e-5)
    plain, routed = (mechanism_for(privacy, size=400, rows=40, steps=50, router=router) for router in (False, True))
    for mechanism in (plain, routed):
        assert 2.98 < epsilon_spent([mechanism], 1e-5) <= 3.0
        assert (mechanism.rate, mechanism.expected) == (0.1, 40)
    assert plain.router_multiplier is None
    assert routed.noise_multiplier > plain.noise_multiplier
    assert epsilon_spent([plain, plain], 1e-5) > 4
    assert mechanism_for(replace(privacy, size=80), size=400, rows=160, steps=1, router=False).rate == 1
    assert epsilon_spent([replace(plain, noise_multiplier=0)], 1e-5) == math.inf


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"epsilon": 0}, "epsilon is 0"),
        ({"epsilon": math.inf}, "epsilon is inf"),
        ({"delta": 1}, "delta is 1"),
        ({"clip": -1}, "clip is -1"),
        ({"draws": 0}, "draws is 0"),
        ({"size": 1000, "delta": 0.01}, "expected much less than 0.001"),
        ({"total": 1}, "less than the epsilon"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        Privacy(**{"epsilon": 8, **values})


def test_trainings_that_cannot_be_private_are_refused() -> None:
    with pytest.raises(SettingsError, match="full copy is not trained privately"):
        quick(FullCopy(), privacy=PRIVACY)
    with pytest.raises(SettingsError, match="expected one slice"):
        quick(Lora(), privacy=PRIVACY, slices=2)
    with pytest.raises(SettingsError, match="has a size of block of its own"):
        quick(Lora(), privacy=PRIVACY, at_once=2)
    with pytest.raises(SettingsError, match="PrivateSteps"):
        Trainee(tiny_backbone(), toy_data("oak"), quick(Lora(), privacy=PRIVACY))
    assert "privacy" not in quick(Lora()).settings()
