"""Feature distances against scipy, closed forms and plain loops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from intarsia.audit import Moments, Resampling, feature_report, frechet_distance, kernel_distance
from intarsia.diffusion import keyed_normal
from intarsia.errors import InputError, SettingsError

FEW = Resampling(replicates=40)


def features(count: int, dim: int, *key: int | str) -> Tensor:
    return keyed_normal((count, dim), "features", *key, dtype=torch.float64)


def by_scipy(first: Tensor, second: Tensor) -> float:
    """The published recipe, with a general matrix root."""
    linalg = pytest.importorskip("scipy.linalg")
    (m1, c1), (m2, c2) = ((rows.numpy().mean(0), np.cov(rows.numpy(), rowvar=False)) for rows in (first, second))
    return ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)


@pytest.mark.parametrize("dim", [2, 16, 48])
def test_frechet_equals_scipy(dim: int):
    mix = features(dim, dim, "mix") / dim**0.5
    first, second = features(300, dim, 1), features(200, dim, 2) @ mix + 0.3
    ours = frechet_distance(Moments.of(first), Moments.of(second))
    assert ours == pytest.approx(by_scipy(first, second), rel=1e-6)


def test_frechet_of_singular_covariances():
    """With fewer rows than numbers a general root loses half of the digits; on a diagonal the truth is known."""
    first, second = torch.tensor([4.0, 1.0, 0.0, 0.0]).diag(), torch.tensor([1.0, 0.0, 9.0, 0.0]).diag()
    turn = torch.linalg.qr(features(4, 4, "turn")).Q
    moved = [turn @ covariance.double() @ turn.mT for covariance in (first, second)]
    mean = torch.zeros(4)
    distance = frechet_distance(Moments(mean, moved[0]), Moments(mean + 0.5, moved[1]))
    # 4 * 0.25 apart, and sum (sqrt(a) - sqrt(b))^2 = 1 + 1 + 9
    assert distance == pytest.approx(12.0, rel=1e-7)


def test_frechet_of_a_set_with_itself_is_zero():
    rows = features(20, 32)
    assert frechet_distance(Moments.of(rows), Moments.of(rows)) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_equals_plain_loops():
    first, second = features(7, 3, 1), features(5, 3, 2) + 0.5

    def mean(a: Tensor, b: Tensor, *, same: bool) -> float:
        pairs = [(x, y) for i, x in enumerate(a) for j, y in enumerate(b) if not (same and i == j)]
        return sum(((x @ y).item() / 3 + 1) ** 3 for x, y in pairs) / len(pairs)

    plain = mean(first, first, same=True) + mean(second, second, same=True) - 2 * mean(first, second, same=False)
    assert kernel_distance(first, second) == pytest.approx(plain, rel=1e-12)


def test_kernel_distance_is_unbiased():
    """Between equal distributions it is zero on average, also in blocks; the biased form would be about 0.4 here."""
    for block in (10, 1000):
        found = [
            kernel_distance(features(20, 4, "a", k), features(20, 4, "b", k), Resampling(block=block))
            for k in range(300)
        ]
        error = np.std(found) / len(found) ** 0.5
        assert abs(np.mean(found)) < 3 * error
        assert 3 * error < 0.1


def test_intervals_are_as_wide_as_the_scatter_of_repetitions():
    settings = Resampling(replicates=40, confidence=0.6827)
    reports = [
        feature_report(features(120, 3, "a", k) + 0.6, features(120, 3, "b", k), network="toy", settings=settings)
        for k in range(60)
    ]
    for kind in ("fd", "kid"):
        estimates = [getattr(report, kind) for report in reports]
        scatter = np.std([estimate.value for estimate in estimates])
        reach = np.mean([estimate.high - estimate.value for estimate in estimates])
        assert reach == pytest.approx(scatter, rel=0.25)
    wide = feature_report(features(120, 3, "a", 0), features(120, 3, "b", 0), network="toy", settings=Resampling())
    assert wide.fd.low == 0


def test_report_has_the_floor_at_equal_counts():
    real, held_out, samples = features(80, 4, "real"), features(60, 4, "held out"), features(90, 4, "samples") + 1
    report = feature_report(samples, real, network="toy", held_out=held_out, settings=FEW)
    assert (report.name, report.count, report.reference_count) == ("FD-toy", 60, 80)
    assert report.fd.value != pytest.approx(by_scipy(samples, real), rel=1e-3), "all samples were used"
    assert report.fd_floor is not None
    assert report.fd_floor.value == pytest.approx(by_scipy(held_out, real), rel=1e-6)
    assert report.fd_floor.high < report.fd.low
    assert report.kid_floor is not None
    assert report.kid_floor.low < 0 < report.kid_floor.high
    assert "FD-toy" in str(report)
    assert "floor" in str(report)


def test_report_is_fixed_by_its_seed():
    first, second = features(30, 4, 1), features(30, 4, 2)
    reports = [
        feature_report(first, second, network="toy", settings=dataclasses.replace(FEW, seed=seed)) for seed in (0, 0, 1)
    ]
    assert reports[0] == reports[1]
    assert reports[0] != reports[2]
    assert reports[0].fd.value == reports[2].fd.value


@pytest.mark.parametrize("bad", [torch.zeros(1, 3), torch.zeros(4), torch.full((4, 3), torch.nan)])
def test_bad_features_are_refused(bad: Tensor):
    with pytest.raises(InputError, match="features"):
        feature_report(bad, features(4, 3), network="toy")


def test_features_of_two_networks_are_refused():
    for compare in (kernel_distance, lambda a, b: frechet_distance(Moments.of(a), Moments.of(b))):
        with pytest.raises(InputError, match="one network only"):
            compare(features(4, 3), features(4, 2))


def test_moments_are_checked():
    with pytest.raises(InputError, match=r"expected \(d,\) and \(d, d\)"):
        Moments(torch.zeros(3), torch.zeros(2, 2))
    with pytest.raises(InputError, match="not finite"):
        Moments(torch.zeros(1), torch.full((1, 1), torch.inf))


def test_settings_are_checked():
    for wrong in ({"replicates": 1}, {"block": 1}, {"confidence": 1.0}):
        with pytest.raises(SettingsError):
            Resampling(**wrong)
    with pytest.raises(SettingsError, match="name of its network"):
        feature_report(features(4, 2), features(4, 2), network="")
