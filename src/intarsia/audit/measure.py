"""`measure`: how far fakes are from real images in one feature network, with intervals and the floor.

A figure means nothing without its network, its counts and its floor, so a report carries all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from intarsia.audit.features import FeatureNetwork, Features, Images
from intarsia.audit.frechet import frechet_trials
from intarsia.audit.halves import Estimate, Halves, Resampling, Trials, floor_range, interval
from intarsia.audit.inception import FID_WEIGHTS
from intarsia.audit.kernel import kernel_trials
from intarsia.audit.neighbourhoods import DENSITY_NEIGHBOURS, density_coverage_trials, precision_recall_trials
from intarsia.diffusion import keyed_generator
from intarsia.errors import InputError, SettingsError, UnknownName

FEWEST_IMAGES = 1500
_FEWEST_OF_ALL = 2 * (DENSITY_NEIGHBOURS + 1)  # a half must hold an image and its neighbours

Family = Callable[[Tensor, Tensor, Halves], dict[str, Trials]]
OnProgress = Callable[[str, int, int], None]
"""Told of what ("images", then "figures") how many are done, out of how many."""


@dataclass(frozen=True)
class Metric:
    """A figure: whether more of it is better, and between which bounds it lies."""

    better: str
    bounds: tuple[float, float]
    family: Family


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "fd": Metric("lower", (0, math.inf), frechet_trials),
        "kid": Metric("lower", (-math.inf, math.inf), kernel_trials),
        "precision": Metric("higher", (0, 1), precision_recall_trials),
        "recall": Metric("higher", (0, 1), precision_recall_trials),
        "density": Metric("higher", (0, math.inf), density_coverage_trials),
        "coverage": Metric("higher", (0, 1), density_coverage_trials),
    }
)


@dataclass(frozen=True)
class Score:
    """One figure.

    Args:
        value: fakes against reals, all `count` rows a side, with its interval.
        halves: the same at `count // 2` rows a side, mean over random halves: what the floor is to be held against.
        floor: one half of the reals against the other; the interval holds so many of the random splits.
    """

    value: Estimate
    halves: float
    floor: Estimate


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `measure` found.

    Args:
        network, digest, image_size: of the feature network.
        count: rows a side that were compared; the larger side was thinned out at random.
        given: rows that were given, fake and real.
        scores: by metric, in the order asked for.
        settings: of the resampling.
    """

    network: str
    digest: str
    image_size: int
    count: int
    given: tuple[int, int]
    scores: Mapping[str, Score] = field(hash=False)
    settings: Resampling

    def __getitem__(self, metric: str) -> Score:
        return self.scores[metric]

    @property
    def fd_name(self) -> str:
        """`FD-<network>`, or "FID" where the network is the one of that name."""
        return "FID" if self.digest == FID_WEIGHTS else f"FD-{self.network}"

    def label(self, metric: str) -> str:
        """What a table calls a metric."""
        return {"fd": self.fd_name, "kid": "KID"}.get(metric, metric)

    def document(self) -> dict[str, object]:
        """The report as plain values for JSON, the metrics with their labels and what is better."""
        scores = {
            name: {"label": self.label(name), "better": METRICS[name].better, **asdict(score)}
            for name, score in self.scores.items()
        }
        about = {name: getattr(self, name) for name in ("network", "digest", "image_size", "count")}
        return {
            **about,
            "half_count": self.count // 2,
            "given": {"fake": self.given[0], "real": self.given[1]},
            "settings": asdict(self.settings),
            "scores": scores,
        }

    def __str__(self) -> str:
        lines = [f"{self.count} rows a side; in brackets, halves against their floor"]
        lines += [
            f"{self.label(name)} {score.value} ({score.halves:.4g} against {score.floor})"
            for name, score in self.scores.items()
        ]
        return "\n".join(lines)


def measure(
    fake: Images,
    real: Images,
    *,
    network: FeatureNetwork,
    metrics: Sequence[str] = tuple(METRICS),
    settings: Resampling | None = None,
    small: bool = False,
    on_progress: OnProgress | None = None,
) -> Report:
    """Compare generated images with real ones; arguments as for `measure_features`.

    Raises:
        InputError: images that the network does not read, and as `measure_features`.
        SettingsError, UnknownName: as `measure_features`.
    """
    _check_metrics(metrics)
    check_count(min(len(fake), len(real)), small=small)
    total = len(fake) + len(real)
    tell = on_progress or _say_nothing
    found = (
        Features.of(fake, network, on_progress=lambda done, _: tell("images", done, total)),
        Features.of(real, network, on_progress=lambda done, _: tell("images", len(fake) + done, total)),
    )
    return measure_features(*found, metrics=metrics, settings=settings, small=small, on_progress=on_progress)


def measure_features(
    fake: Features,
    real: Features,
    *,
    metrics: Sequence[str] = tuple(METRICS),
    settings: Resampling | None = None,
    small: bool = False,
    on_progress: OnProgress | None = None,
) -> Report:
    """Compare features of generated images with those of real ones, at equal counts.

    What is resampled: rows of both sides, as random halves without replacement. The interval of a value is for other
    fakes and other reals from the same places; it holds nothing of training a model again.

    Args:
        fake, real: of one network; the larger side is thinned out at random.
        metrics: keys of `METRICS`.
        settings: replicates, confidence, seed.
        small: compare fewer than 1,500 images a side, with the noise and the bias that this brings.
        on_progress: told what is done.

    Raises:
        IncompatibleError: features of two networks.
        InputError: fewer than 1,500 rows a side and not `small`, or fewer than twelve.
        SettingsError: no metrics.
        UnknownName: a metric that does not exist.
    """
    settings = settings or Resampling()
    _check_metrics(metrics)
    fake.check_comparable(real)
    count = min(len(fake), len(real))
    check_count(count, small=small)
    rows, reference = (
        _thinned(side.rows, count, settings.seed, name) for side, name in ((fake, "fake"), (real, "real"))
    )
    halves = Halves.draw(count, settings)
    trials: dict[str, Trials] = {}
    # Each family once: two figures of one share its distances.
    families = list(dict.fromkeys(METRICS[name].family for name in metrics))
    for done, family in enumerate(families, start=1):
        trials |= family(rows, reference, halves)
        (on_progress or _say_nothing)("figures", done, len(families))
    scores = {
        name: Score(
            interval(trials[name], halves, settings.confidence, METRICS[name].bounds),
            trials[name].halves.mean().item(),
            floor_range(trials[name], settings.confidence),
        )
        for name in metrics
    }
    return Report(
        network=real.network,
        digest=real.digest,
        image_size=real.image_size,
        count=count,
        given=(len(fake), len(real)),
        scores=MappingProxyType(scores),
        settings=settings,
    )


def _say_nothing(what: str, done: int, total: int) -> None:
    pass


def _check_metrics(metrics: Sequence[str]) -> None:
    if not metrics:
        raise SettingsError(f"no metrics were asked for; choose some of {', '.join(METRICS)}")
    for name in metrics:
        if name not in METRICS:
            raise UnknownName("metric", name, METRICS)


def check_count(count: int, *, small: bool) -> None:
    """Refuse a comparison of too few images.

    Args:
        count: of the smaller side.
        small: fewer than 1,500 are wanted.

    Raises:
        InputError: fewer than 1,500 and not `small`, or fewer than twelve.
    """
    if count < _FEWEST_OF_ALL:
        raise InputError(f"{count} images on the smaller side; at least {_FEWEST_OF_ALL} are needed to say anything")
    if count < FEWEST_IMAGES and not small:
        raise InputError(
            f"{count} images on the smaller side, expected at least {FEWEST_IMAGES:,}: figures from fewer are biased "
            "and noisy; give more, or ask for a small comparison (small=True, --small) and read its floor and intervals"
        )


def _thinned(rows: Tensor, count: int, seed: int, side: str) -> Tensor:
    """`count` of the rows, in random order: the kernel distance takes them in blocks."""
    kept = keyed_generator("thin out", seed, side, len(rows)).permutation(len(rows))[:count]
    return rows[torch.from_numpy(kept)]
