"""Reports: their figures are those of the plain functions, their intervals and floors those of repetition."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor

from intarsia.audit import (
    METRICS,
    Features,
    Report,
    Resampling,
    density_coverage,
    frechet_distance,
    kernel_distance,
    measure,
    measure_features,
    precision_recall,
)
from intarsia.audit.halves import Halves
from intarsia.audit.measure import FEWEST_IMAGES
from intarsia.errors import IncompatibleError, InputError, SettingsError, UnknownName

from .plain import features

FEW = Resampling(replicates=20)


class Toy:
    """A network that sees the corner pixels."""

    name, digest, image_size = "toy", "d1", 4

    def features(self, images: Tensor) -> Tensor:
        return images[:, 0, :2, 0]


def of(rows: Tensor, network: str = "toy") -> Features:
    return Features(rows, network)


def compare(fake: Tensor, real: Tensor, settings: Resampling = FEW) -> Report:
    return measure_features(of(fake), of(real), settings=settings, small=True)


def plainly(fake: Tensor, real: Tensor) -> dict[str, float]:
    """Every figure by the functions that know no halves."""
    distances = {"fd": frechet_distance(fake, real), "kid": kernel_distance(fake, real)}
    pairs = zip(
        METRICS, [*distances.values(), *precision_recall(fake, real), *density_coverage(fake, real)], strict=True
    )
    return dict(pairs)


def test_values_halves_and_floors_are_the_plain_figures():
    fake, real = 0.9 * features(31, 3, "fake") + 0.2, features(31, 3, "real")
    settings = Resampling(replicates=3)
    halves = Halves.draw(31, settings)
    trials = {name: t for m in METRICS.values() for name, t in m.family(fake, real, halves).items()}
    whole = plainly(fake, real)
    for k in range(3):
        f, a, b = fake[halves.fake[k]], real[halves.real[k]], real[halves.other[k]]
        assert len(f) == len(a) == len(b) == 15
        assert not (halves.real[k] & halves.other[k]).any()
        near, floor = plainly(f, a), plainly(b, a)
        for name in METRICS:
            assert trials[name].value == pytest.approx(whole[name], rel=1e-9)
            assert trials[name].halves[k].item() == pytest.approx(near[name], rel=1e-9)
            assert trials[name].floor[k].item() == pytest.approx(floor[name], rel=1e-9)


def test_blocks_of_the_kernel_distance_have_their_share_of_every_half(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("intarsia.audit.kernel._BLOCK", 20)
    fake, real = features(60, 3, "fake") + 0.3, features(60, 3, "real")
    halves = Halves.draw(60, Resampling(replicates=2))
    trials = METRICS["kid"].family(fake, real, halves)["kid"]
    assert trials.value == pytest.approx(kernel_distance(fake, real, block=20), rel=1e-12)
    blocks = [slice(k, k + 20) for k in (0, 20, 40)]
    by_hand = [kernel_distance(fake[b][halves.fake[0, b]], real[b][halves.real[0, b]]) for b in blocks]
    assert trials.halves[0].item() == pytest.approx(np.mean(by_hand), rel=1e-9)


def test_intervals_are_as_wide_as_the_scatter_of_repetitions():
    settings = Resampling(replicates=24, confidence=0.6827)
    reports = [
        compare(0.8 * features(100, 3, "a", k) + 0.6, features(100, 3, "b", k), settings=settings) for k in range(40)
    ]
    for name in METRICS:
        estimates = [report[name].value for report in reports]
        scatter = np.std([estimate.value for estimate in estimates])
        reach = np.mean([(estimate.high - estimate.low) / 2 for estimate in estimates])
        # At the limit of what a share can be an interval is cut off; near it, the spread is small and uneven.
        assert reach == pytest.approx(scatter, rel=0.3), name


def test_the_floor_is_where_real_images_fall():
    """Fresh reals against reals lie in the floor's range as often as it says; worse fakes lie outside."""
    inside = []
    for k in range(12):
        fresh = compare(features(80, 3, "fresh", k), features(80, 3, "real", k))
        inside += [score.floor.low <= score.halves <= score.floor.high for score in fresh.scores.values()]
    assert np.mean(inside) > 0.9
    moved = compare(features(80, 3, "fresh") + 2, features(80, 3, "real"))
    assert moved["fd"].halves > moved["fd"].floor.high
    assert moved["kid"].halves > moved["kid"].floor.high
    for name in ("precision", "recall", "density", "coverage"):
        assert moved[name].halves < moved[name].floor.low


def test_counts_are_made_equal():
    report = compare(features(90, 4, "samples"), features(61, 4, "real"))
    assert (report.count, report.given, report.document()["half_count"]) == (61, (90, 61), 30)
    assert report["fd"].value.value != pytest.approx(
        frechet_distance(features(90, 4, "samples"), features(61, 4, "real"))
    )


def test_intervals_stay_within_what_a_figure_can_be():
    same = features(40, 3)
    report = compare(same, same.clone())
    assert report["fd"].value.low == 0
    assert report["precision"].value.high <= 1
    assert report["kid"].value.low < 0


def test_report_is_fixed_by_its_seed():
    fake, real = features(30, 4, 1), features(30, 4, 2)
    reports = [compare(fake, real, dataclasses.replace(FEW, seed=seed)) for seed in (0, 0, 1)]
    assert reports[0] == reports[1]
    assert reports[0]["fd"].floor != reports[2]["fd"].floor
    assert reports[0]["fd"].value.value == pytest.approx(reports[2]["fd"].value.value)


def test_report_says_what_was_compared():
    images = features(24, 16, "images").reshape(24, 1, 4, 4)
    report = measure(images, images.flip(0) + 0.1, network=Toy(), metrics=("kid", "fd"), settings=FEW, small=True)
    assert (report.fd_name, report.network, report.digest, report.image_size) == ("FD-toy", "toy", "d1", 4)
    assert tuple(report.scores) == ("kid", "fd")
    document = json.loads(json.dumps(report.document(), allow_nan=False))
    assert document["scores"]["fd"]["label"] == "FD-toy"
    assert document["scores"]["fd"]["better"] == "lower"
    assert document["settings"] == {"replicates": 20, "confidence": 0.95, "seed": 0}
    assert "FD-toy" in str(report)
    assert "24 rows a side" in str(report)


def test_progress_is_told_of_both_sides_and_of_every_family(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("intarsia.audit.features._AT_ONCE", 10)
    images, told = features(24, 16, "images").reshape(24, 1, 4, 4), []
    chosen = ("precision", "fd", "recall")
    quiet = measure(images, images[:13], network=Toy(), metrics=chosen, settings=FEW, small=True)
    loud = measure(
        images,
        images[:13],
        network=Toy(),
        metrics=chosen,
        settings=FEW,
        small=True,
        on_progress=lambda *k: told.append(k),
    )
    assert quiet == loud
    assert [done for what, done, total in told if (what, total) == ("images", 37)] == [10, 20, 24, 34, 37]
    assert told[-2:] == [("figures", 1, 2), ("figures", 2, 2)]


def test_small_sets_are_refused_unless_wanted():
    few = of(features(FEWEST_IMAGES - 1, 2))
    with pytest.raises(InputError, match=r"1499 images .* at least 1,500"):
        measure_features(few, few)
    with pytest.raises(InputError, match=r"11 images .* at least 12"):
        compare(features(11, 2), features(50, 2))


def test_features_of_two_networks_are_refused():
    rows = features(20, 2)
    with pytest.raises(IncompatibleError, match="differ in network: 'a' and 'b'"):
        measure_features(of(rows, "a"), of(rows, "b"), small=True)
    with pytest.raises(IncompatibleError, match="differ in digest"):
        measure_features(Features(rows, "a", "1"), Features(rows, "a", "2"), small=True)
    with pytest.raises(InputError, match="one network only"):
        compare(rows, features(20, 3))
    with pytest.raises(SettingsError, match="name of their network"):
        Features(rows, "")


@pytest.mark.parametrize("bad", [torch.zeros(1, 3), torch.zeros(4), torch.full((4, 3), torch.inf)])
def test_bad_features_are_refused(bad: Tensor):
    with pytest.raises(InputError, match="features"):
        of(bad)


def test_settings_are_checked():
    for wrong in ({"replicates": 1}, {"replicates": 10**9}, {"confidence": 1.0}, {"seed": -1}):
        with pytest.raises(SettingsError):
            Resampling(**wrong)
    rows = of(features(20, 2))
    with pytest.raises(UnknownName, match="unknown metric 'fid': did you mean"):
        measure_features(rows, rows, metrics=("fid",), small=True)
    with pytest.raises(SettingsError, match="no metrics"):
        measure_features(rows, rows, metrics=(), small=True)
