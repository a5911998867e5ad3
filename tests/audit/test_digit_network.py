"""The judge reads what it was taught, refuses what is between, and is the same every time."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from intarsia.audit import (
    DigitNetwork,
    Digits,
    DigitSettings,
    Rejects,
    fit_digit_network,
    make_rejects,
)
from intarsia.audit.digit_network import upper_bound
from intarsia.data import Source
from intarsia.errors import InputError, SettingsError

SMALL = DigitSettings(width=8, features=16, steps=250, batch=64)
NO_LETTERS = torch.zeros(0, 1, 8, 8)


@pytest.fixture(scope="module")
def network(train_symbols: Source) -> DigitNetwork:
    digits = Digits.of(train_symbols)
    return fit_digit_network(digits, make_rejects(digits, NO_LETTERS, count=2000, seed=0), SMALL)


@pytest.fixture(scope="module")
def held_out(held_out_symbols: Source) -> Digits:
    return Digits.of(held_out_symbols)


def test_reads_held_out_images_and_refuses_rejects(network: DigitNetwork, held_out: Digits):
    calibrated = network.calibrated(make_rejects(held_out, NO_LETTERS, count=1500, seed=1))
    judgement = calibrated.judge(held_out.images)
    assert (judgement.labels == held_out.labels).double().mean() >= 0.97
    assert judgement.share >= 0.85
    others = make_rejects(held_out, NO_LETTERS, count=1500, seed=2)
    assert calibrated.judge(others.images).share <= 0.05
    assert calibrated.judge(others.of_kind("noise")).share <= 0.05


def test_calibration_takes_the_lowest_threshold(network: DigitNetwork, held_out: Digits):
    rejects = make_rejects(held_out, NO_LETTERS, count=1500, seed=1)
    calibrated = network.calibrated(rejects, accept=0.01)
    accepted = int(calibrated.judge(rejects.images).accepted.sum())
    assert upper_bound(accepted, len(rejects)) <= 0.01 < upper_bound(accepted + 1, len(rejects))


def test_acceptance_needs_a_digit_likelier_than_a_reject(network: DigitNetwork, held_out: Digits):
    plain = torch.linspace(-1, 1, 9)[:, None, None, None].expand(-1, 1, 8, 8)
    assert not dataclasses.replace(network, threshold=0.0).judge(plain).accepted.any()
    nothing = dataclasses.replace(network, threshold=1.1).judge(held_out.images)
    assert not nothing.accepted.any()
    assert nothing.share == 0


def test_judgement_and_features_do_not_depend_on_the_batch(network: DigitNetwork, held_out: Digits):
    images = held_out.images.repeat(8, 1, 1, 1)  # more than one block
    assert network.features(images).shape == (len(images), SMALL.features)
    torch.testing.assert_close(network.features(images)[-3:], network.features(images[-3:]), atol=1e-5, rtol=1e-5)
    assert torch.equal(network.judge(images).labels[-3:], network.judge(images[-3:]).labels)


def test_features_are_level(network: DigitNetwork, held_out: Digits):
    features = network.features(held_out.images)
    assert not features.requires_grad
    torch.testing.assert_close(features.square().mean(1), torch.ones(len(features)), atol=0.02, rtol=0)


def test_training_is_fixed_by_its_seed(train_symbols: Source):
    digits = Digits.of(train_symbols)
    rejects = make_rejects(digits, NO_LETTERS, count=100, seed=0)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(runs))  # nothing may come from the global generator
        settings = dataclasses.replace(SMALL, steps=5, seed=seed)
        runs.append(fit_digit_network(digits, rejects, settings).features(digits.images))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_larger_images(held_out: Digits):
    images = torch.nn.functional.interpolate(held_out.images, size=28, mode="bilinear")
    digits = dataclasses.replace(held_out, images=images)
    rejects = make_rejects(digits, torch.zeros(0, 1, 28, 28), count=50, seed=0)
    network = fit_digit_network(digits, rejects, dataclasses.replace(SMALL, steps=2))
    assert network.judge(images[:5]).probability.shape == (5,)


def test_upper_bound_is_wilsons():
    """Against the quadratic that defines it: (share - p)^2 = z^2 p (1 - p) / n."""
    for hits, count in ((0, 50), (3, 100), (40, 1000)):
        p = upper_bound(hits, count)
        assert p > hits / count
        assert (hits / count - p) ** 2 == pytest.approx(1.645**2 * p * (1 - p) / count)


def test_bad_input_is_refused(network: DigitNetwork, held_out: Digits):
    for images in (torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 9, 9), torch.zeros(2, 64)):
        with pytest.raises(InputError, match="this network reads"):
            network.judge(images)
        with pytest.raises(InputError, match="this network reads"):
            network.features(images)
    with pytest.raises(InputError, match="give some, of the same size"):
        fit_digit_network(held_out, Rejects(NO_LETTERS, ()), SMALL)
    with pytest.raises(InputError, match="give more"):
        network.calibrated(make_rejects(held_out, NO_LETTERS, count=20, seed=0))
    with pytest.raises(SettingsError, match="share between 0 and 1"):
        network.calibrated(make_rejects(held_out, NO_LETTERS, count=20, seed=0), accept=1.0)


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"steps": 0}, {"batch": 1}, {"lr": 0.0}, {"dropout": 1.0}, {"noise": -1.0}]
)
def test_settings_are_checked(wrong: dict[str, float]):
    with pytest.raises(SettingsError):
        DigitSettings(**wrong)
