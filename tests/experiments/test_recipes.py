"""Every recipe from end to end, with a few steps and images: what is asked of a table, not how good its figures are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.audit.features import Images, as_drawn
from intarsia.compartments import Compartment, Lora, TrainSettings
from intarsia.composition import SampleSettings
from intarsia.data import Source
from intarsia.experiments.reproduce.bench import Bench
from intarsia.experiments.reproduce.curves import ANCESTRAL, COMPOSED, REAL, RETRAINED, arrivals, report_curves
from intarsia.experiments.reproduce.run import fill
from intarsia.experiments.reproduce.scale import Scale
from intarsia.experiments.reproduce.study import Study
from intarsia.experiments.reproduce.world import World, by_class
from intarsia.files import read_json
from intarsia.routers import GaussianSettings, PrototypeSettings

QUICK = Scale(
    steps=16,
    training=TrainSettings(adapter=Lora(rank=1), steps=16, rows=4, precision="float32"),
    sampling=SampleSettings(steps=2, batch=64),
    images=12,
    routers=(GaussianSettings(), PrototypeSettings(prototypes=2)),
    methods=("gaussian", "naive"),
    seeds=(0,),
)


def nobody(*_: object) -> None:
    """Is told of progress and does nothing."""


@dataclass(frozen=True)
class Blurred:
    """A feature network: the picture at a quarter of its size."""

    name: str = "blurred"
    digest: str = "blurred"
    image_size: int = 2

    def features(self, images: Images) -> Tensor:
        return F.adaptive_avg_pool2d(as_drawn(images), self.image_size).flatten(1)


def drawn(name: str, count: int, seed: int) -> Source:
    """Grey images of 8 px, one of eight labels each: a bar whose place is the label, in noise."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 60, (count, 8, 8, 1), dtype=np.uint8)
    for k, image in enumerate(images):
        image[k % 8] += 150
    names = [f"{k}.png" for k in range(count)]
    labels = [f"label {k % 8}" for k in range(count)]
    return Source.build(name, owner="Ada", licence="MIT", images=images, file_names=names, labels=labels)


@pytest.fixture(scope="module")
def world() -> World:
    return World("bars", "uvit-tiny-8", drawn("all", 64, 0), drawn("reference", 120, 1), Blurred())


def run(name: str, out: Path, world: World, scale: Scale = QUICK) -> tuple[Bench, str]:
    """Fill a table, then go on with it, which must compute nothing; the bench and the page."""
    page = fill(name, out, world, scale, nobody, nobody)
    before = (out / "results.csv").read_bytes(), page.read_bytes()

    def none(text: str, *_: object) -> None:
        pytest.fail(f"computed again: {text}")

    assert fill(name, out, world, scale, none, none) == page
    assert ((out / "results.csv").read_bytes(), page.read_bytes()) == before
    return Bench(out, read_json(out / "settings.json"), nobody, nobody), page.read_text(encoding="utf-8")


def test_curves_keep_labels_and_budgets_in_step(tmp_path: Path, world: World) -> None:
    bench, page = run("curves", tmp_path, world)
    assert [len(bench.where(sources=count)) for count in range(1, 9)] == [4] * 8
    assert "## At most 1 % worse by forgetting?" in page
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    part = Compartment.load(tmp_path / "work/compartments/seed-0-sources/class-0").training["settings"]["steps"]
    for count in (1, 3, 8):
        anew = Compartment.load(tmp_path / f"work/compartments/seed-0-retrained-{count}/all")
        assert anew.training["settings"]["steps"] == count * part
        assert sorted(anew.classes) == [f"label {place}" for place in sorted(arrivals(0)[:count])]


def test_a_composition_does_not_know_in_which_order_its_sources_came(tmp_path: Path, world: World) -> None:
    sources = by_class(world.images, 8)[:3]
    results = []
    for name, order in (("up", [0, 1, 2]), ("down", [2, 0, 1])):
        study = Study(Bench(tmp_path / name, {}, nobody, nobody), world, QUICK)
        team = study.team("team", [sources[k] for k in order], QUICK.trained(1, 8, seed=0), ["gaussian"])
        results.append((study.draw(team, [source.name for source in sources], "gaussian", 0), team))
    (up, first), (down, second) = results
    assert torch.equal(up.images, down.images)
    assert all(first.compartments[s.name].digest == second.compartments[s.name].digest for s in sources)


def test_the_claim_is_judged_by_the_interval(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {}, nobody, nobody)
    for count, factors in {6: (1.0, 1.001, 1.002), 7: (1.05, 1.051, 1.052), 8: (0.9, 1.0, 1.2)}.items():
        for seed, factor in enumerate(factors):
            for method, value in {COMPOSED: 2 * factor, RETRAINED: 2.0, ANCESTRAL: 2.0, REAL: 1.0}.items():
                bench.cell({"seed": seed, "sources": count, "method": method}, lambda value=value: {"FD-x": value})
    page = report_curves(bench, "?").read_text(encoding="utf-8")
    assert "Against the retrained monolith: it holds with 6 left; it fails with 7 left." in page
    assert "Against the composition before: it holds with 6 left; it is open with 7 left." in page
