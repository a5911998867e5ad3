"""Do images show what they were asked for? The paper's Table 2, and its analogue on emoji and their captions.

Every owner's compartment learns from that owner's captions alone. Asked for concepts that none of them was trained on,
each owner alone, all of them composed by every rule, and the monolith of all captions are judged by the category and
the subcategory of what they drew. At the paper's scale the owners are subsets of MSCOCO (`aesthetic`), the concepts are
captions of other pictures, and the judges models that were given. The public backbone alone is asked too: in words if
it reads them, and else by its labels, which are captions of the core's pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from intarsia.audit import error_reduction
from intarsia.compartments import FullCopy, TextPrompts
from intarsia.experiments.reproduce.bench import Bench, Row, keys_of
from intarsia.experiments.reproduce.figures import markdown, spread
from intarsia.experiments.reproduce.jury import POINTS, REAL, Jury, means
from intarsia.experiments.reproduce.scale import COSTLY, SINGLE, Scale, all_but, larger
from intarsia.experiments.reproduce.splits import Judge
from intarsia.experiments.reproduce.study import Study, measured
from intarsia.experiments.reproduce.summary import distance_of, text_of, write_summary
from intarsia.experiments.reproduce.world import World
from intarsia.routers import GaussianSettings, PrototypeSettings

MONOLITH, BASE = "monolith", "backbone"
_BESIDE = ("precision", "recall", "calls", "share gap")


# Half an hour of one core for a seed. With the usual steps and images it would be two hours, and the heads of
# `reference` and `joint` weights are another.
def alignment_scale(usual: Scale) -> Scale:
    """Adapters that read captions, and budgets to suit: of these there is no soup, and `ito` knows no guidance."""
    training = replace(usual.training, adapter=TextPrompts(tokens=16, length=12), lr=5e-3, rows=32)
    return replace(
        usual,
        steps=1200,
        training=training,
        sampling=replace(usual.sampling, steps=20),
        images=240,
        routers=(GaussianSettings(), PrototypeSettings()),
        methods=all_but(COSTLY, "ito", "soup", "reference", "joint", "joint-posterior"),
    )


def alignment(study: Study) -> None:
    """Fill the table."""
    world, bench = study.world, study.bench
    jury, judge = jury_and_judge(world)
    bench.cell({"seed": "-", "method": REAL}, lambda: {**world.yardstick().floor(), **means(jury.of_real(world))})
    grows = not isinstance(study.scale.training.adapter, FullCopy)
    for seed in study.scale.seeds:
        bench.cell({"seed": seed, "method": BASE}, _base(study, judge, seed))
        for size in (1, len(world.owners))[: 1 + grows]:
            bench.cell({"seed": seed, "method": f"{MONOLITH} x{size}"}, _monolith(study, judge, seed, size))
        _owners(study, judge, seed)


def jury_and_judge(world: World) -> tuple[Jury, Judge]:
    """The judges of a world's captions, and the figures that a set of images gets: its points and distances."""
    yardstick, jury = world.yardstick(), Jury.of(world)
    return jury, lambda result: {**means(jury.of_drawn(result)), **measured(result, yardstick)}


def _base(study: Study, judge: Judge, seed: int) -> Callable[[], Mapping[str, float]]:
    return lambda: judge(study.base(seed))


def _monolith(study: Study, judge: Judge, seed: int, size: int) -> Callable[[], Mapping[str, float]]:
    def compute() -> Mapping[str, float]:
        settings = larger(study.scale.trained(1, 1, seed=seed), size)
        return judge(study.monolith(f"seed-{seed}-all-x{size}", study.world.images, settings))

    return compute


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
    """Points by every judge, the error that is left out of the monolith's, and distances."""
    distance = distance_of(bench)
    judges = [name for name in bench.where(method=REAL)[0].figures if name not in (distance, "KID", *_BESIDE)]
    base = bench.where(method=f"{MONOLITH} x1")
    lines = []
    for method in keys_of(bench.rows, "method"):
        rows = bench.where(method=method)
        points = [cell for judge in judges for cell in (text_of(rows, judge), _reduced(rows, base, judge))]
        lines.append([method, *points, *(text_of(rows, figure) for figure in (distance, *_BESIDE))])
    columns = [column for judge in judges for column in (judge, "error left out")]
    note = (
        f"{POINTS} Error left out: (points - monolith's) / (100 - monolith's), the paper's relative gain; negative "
        "where it is worse. Distances of real drawings are those of the training images, the floor.\n"
    )
    parts = [asks + "\n", markdown(["method", *columns, distance, *_BESIDE], lines), note]
    return write_summary(bench, "alignment", parts)


def _reduced(rows: list[Row], base: list[Row], judge: str) -> str:
    """Over the seeds that both have."""
    theirs = {row.key["seed"]: row.figures[judge] for row in base}
    both = [error_reduction(row.figures[judge], theirs[row.key["seed"]]) for row in rows if row.key["seed"] in theirs]
    return spread(both).text() if both else ""
