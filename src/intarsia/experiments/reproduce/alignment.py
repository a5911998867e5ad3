"""Do images show what they were asked for? The paper's Table 2, and its analogue on emoji and their captions.

Every owner's compartment learns from that owner's captions alone. Asked for concepts that none of them was trained on,
each owner alone, all of them composed by seven rules, and the monolith of all captions are judged by the category and
the subcategory of what they drew. At the paper's scale the owners are subsets of MSCOCO (`aesthetic`), the concepts are
captions of other pictures, and the judges models that were given. The public backbone alone is asked too: in words if
it reads them, and else by its labels, which are captions of the core's pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import isnan
from pathlib import Path

from intarsia.audit import CLIP_SCORE, error_reduction
from intarsia.compartments import FullCopy, TextPrompts
from intarsia.composition import Result
from intarsia.data import Source
from intarsia.experiments.reproduce.bench import Bench, Row, keys_of
from intarsia.experiments.reproduce.figures import markdown, spread
from intarsia.experiments.reproduce.jury import POINTS, REAL, Jury, means
from intarsia.experiments.reproduce.plots import plot_bars
from intarsia.experiments.reproduce.scale import COSTLY, SINGLE, Scale, all_but
from intarsia.experiments.reproduce.splits import Judge
from intarsia.experiments.reproduce.study import BASE, MONOLITH, UNTRAINED, Study, measured
from intarsia.experiments.reproduce.summary import distance_of, slug, text_of, write_summary
from intarsia.experiments.reproduce.world import World
from intarsia.routers import GaussianSettings, PrototypeSettings

_BESIDE = ("precision", "recall", "calls", "share gap")


# Half an hour of one core for a seed where bfloat16 is fast, three to five times that elsewhere. With the usual steps
# and images it would be four times as long, and the heads of `reference` and `joint` weights are as much again.
def alignment_scale(usual: Scale) -> Scale:
    """Adapters that read captions, and budgets to suit: of these there is no soup, and `ito` knows no guidance."""
    training = replace(usual.training, adapter=TextPrompts(tokens=16, length=12), lr=1.5e-2, rows=32)
    return replace(
        usual,
        steps=1200,
        training=training,
        sampling=replace(usual.sampling, steps=20, guidance_scale=5.0),
        images=240,
        routers=(GaussianSettings(), PrototypeSettings()),
        methods=all_but(COSTLY, "ito", "soup", "reference", "joint", "joint-posterior"),
    )


def alignment(study: Study) -> None:
    """Fill the table."""
    world, bench = study.world, study.bench
    jury, judge = jury_and_judge(world)
    bench.cell({"seed": "-", "method": REAL}, lambda: real_drawings(study, jury))
    for seed in study.scale.seeds:
        for method, drawn in beside(study, world.owners[0].kept, seed).items():

            def compute(drawn: Callable[[], Result] = drawn) -> Mapping[str, float]:
                return judge(drawn())

            bench.cell({"seed": seed, "method": method}, compute)
        _owners(study, judge, seed)


def beside(study: Study, source: Source, seed: int) -> dict[str, Callable[[], Result]]:
    """What sources are to be compared with: the backbone, an adapter as it begins, and the monolith.

    There is no larger monolith, as n times the width of an adapter that reads captions takes n times as large steps.
    """
    everything = study.world.images
    settings = study.scale.trained(1, 1, seed=seed)
    drawn = {BASE: partial(study.base, seed), UNTRAINED: partial(study.untrained, source, seed)}
    if isinstance(settings.adapter, FullCopy):
        del drawn[UNTRAINED]  # it begins as the backbone
    return {**drawn, MONOLITH: partial(study.monolith, f"seed-{seed}-all-x1", everything, settings)}


def jury_and_judge(world: World) -> tuple[Jury, Judge]:
    """The judges of a world's captions, and the figures that a set of images gets: its points and distances."""
    yardstick, jury = world.yardstick(), Jury.of(world)
    return jury, lambda result: {**means(jury.of_drawn(result)), **measured(result, yardstick)}


def real_drawings(study: Study, jury: Jury) -> Mapping[str, float]:
    """How often the judges are right about held-out drawings, and the distances of as many training images."""
    return {**study.world.yardstick().floor(study.scale.images), **means(jury.of_real(study.world))}


def _owners(study: Study, judge: Judge, seed: int) -> None:
    """Every owner alone, and all of them by every method."""
    sources = [owner.kept for owner in study.world.owners]
    names = [source.name for source in sources]
    groups: dict[str, tuple[list[str], str]] = {f"{name} alone": ([name], "ancestral") for name in names}
    groups |= {method: (names, method) for method in study.scale.methods if method != SINGLE}
    if all(study.bench.has({"seed": seed, "method": title}) for title in groups):
        return
    settings = study.scale.trained(1, len(sources), seed=seed)
    team = study.team(f"seed-{seed}-owners", sources, settings, study.scale.routers)
    for title, (some, method) in groups.items():

        def compute(some: list[str] = some, method: str = method) -> Mapping[str, float]:
            return judge(study.draw(team, some, method, seed))

        study.bench.cell({"seed": seed, "method": title}, compute)


def report_alignment(bench: Bench, asks: str) -> Path:
    """Points by every judge, in a table and as bars, the error that is left out of the monolith's, and distances."""
    distance, methods = distance_of(bench), keys_of(bench.rows, "method")
    judges = [name for name in bench.where(method=REAL)[0].figures if name not in (distance, "KID", *_BESIDE)]
    base = bench.where(method=MONOLITH)
    lines = []
    for method in methods:
        rows = bench.where(method=method)
        points = [cell for judge in judges for cell in _told(rows, base, judge)]
        lines.append([method, *points, *(text_of(rows, figure) for figure in (distance, *_BESIDE))])
    for judge in judges:
        bars = [spread([row.figures[judge] for row in bench.where(method=method)]) for method in methods]
        plot_bars(bench.out / f"{slug(judge)}.png", methods, bars, x=f"{judge}, points of 100")
    columns = [column for judge in judges for column in (judge, "error left out")[: 1 + _has_error(judge)]]
    note = (
        f"{POINTS} Error left out: (points - base) / (100 - base) where the base is `{MONOLITH}`, the paper's relative "
        "gain; negative where it is worse, and that of real drawings says how far these judges can see. In the "
        "line of real drawings, distances are those of as many training images, the floor. All seeds are asked for the "
        "same captions: intervals tell how much training and noise matter, not which captions were chosen.\n"
    )
    plots = [f"![{judge} of every method]({slug(judge)}.png)\n" for judge in judges]
    parts = [asks + "\n", markdown(["method", *columns, distance, *_BESIDE], lines), note, *plots]
    return write_summary(bench, "alignment", parts)


def _has_error(judge: str) -> bool:
    """Whether 100 points are what a right drawing gets: of CLIP's cosine nothing comes near."""
    return judge != CLIP_SCORE


def _told(rows: list[Row], base: list[Row], judge: str) -> list[str]:
    """The points, and how much of the base's error is left out, over the seeds that both have."""
    points = text_of(rows, judge)
    if not _has_error(judge):
        return [points]
    theirs = {row.key["seed"]: row.figures[judge] for row in base}
    shared = [(row, theirs.get(row.key["seed"])) for row in rows]
    if all(row.key["seed"] == "-" for row in rows):  # real drawings, of which there is one set
        shared = [(row, points) for row in rows for points in theirs.values()]
    left = [error_reduction(row.figures[judge], points) for row, points in shared if points is not None]
    found = [each for each in left if not isnan(each)]
    return [points, spread(found).text() if found else ""]
