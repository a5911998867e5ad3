"""Do images show what they were asked for? The paper's Table 2, and its analogue on emoji and their captions.

Every owner's compartment learns from that owner's captions alone. Asked for concepts that none of them was trained on,
each owner alone, all of them composed by every rule, and the monolith of all captions are judged by the category and
the subcategory of what they drew. At the paper's scale the owners are subsets of MSCOCO (`aesthetic`), the concepts are
captions of other pictures, and the judges models that were given; the backbone, which reads text, is asked alone too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from intarsia.audit import Alignment, AttributeAlignment, error_reduction, fit_attributes
from intarsia.compartments import FullCopy, TextPrompts
from intarsia.composition import Result
from intarsia.experiments.reproduce.bench import Bench, Row, keys_of
from intarsia.experiments.reproduce.figures import markdown, spread
from intarsia.experiments.reproduce.scale import COSTLY, SINGLE, Scale, all_but, larger
from intarsia.experiments.reproduce.study import Study, measured
from intarsia.experiments.reproduce.summary import distance_of, text_of, write_summary
from intarsia.experiments.reproduce.world import World

REAL, MONOLITH, BASE = "real drawings", "monolith", "backbone"
_BLOCK = 64  # pictures unpacked at once
_BESIDE = ("precision", "recall", "calls", "share gap")


def alignment_scale(usual: Scale) -> Scale:
    """The usual budgets, for adapters that read captions: of these there is no soup, and `ito` knows no guidance."""
    training = replace(usual.training, adapter=TextPrompts(tokens=16, length=12), lr=5e-3)
    return replace(usual, training=training, images=600, methods=all_but(COSTLY, "ito", "soup"))


def aligners_of(world: World) -> tuple[Alignment, ...]:
    """The judges of a world's captions: by attributes of what they name, fitted to its training images, and more."""
    labels = [sample.label or "" for sample in world.images.manifest]
    by_attributes = tuple(
        AttributeAlignment(
            name,
            world.network,
            fit_attributes(world.training_features, [values[label] for label in labels]),
            values,
        )
        for name, values in world.attributes.items()
    )
    return (*by_attributes, *world.aligners)


def alignment(study: Study) -> None:
    """Fill the table."""
    world, bench = study.world, study.bench
    yardstick, aligners = world.yardstick(), aligners_of(world)

    def judge(result: Result) -> Mapping[str, float]:
        return {**points_of(aligners, result), **measured(result, yardstick)}

    bench.cell({"seed": "-", "method": REAL}, lambda: points_of_real(aligners, world))
    grows = not isinstance(study.scale.training.adapter, FullCopy)
    for seed in study.scale.seeds:
        if world.backbone.text is not None:
            bench.cell({"seed": seed, "method": BASE}, _base(study, judge, seed))
        for size in (1, len(world.owners))[: 1 + grows]:
            bench.cell({"seed": seed, "method": f"{MONOLITH} x{size}"}, _monolith(study, judge, seed, size))
        _owners(study, judge, seed)


def points_of(aligners: Sequence[Alignment], result: Result) -> dict[str, float]:
    """Of what was drawn for captions, by judge: means over the images."""
    points = _points(aligners, result.images, [asked or "" for asked in result.asked])
    return {name: each.mean().item() for name, each in points.items()}


def points_of_real(aligners: Sequence[Alignment], world: World) -> dict[str, float]:
    """Of held-out pictures, judged by their own captions: what is left to win."""
    prompts = [world.caption(sample) or "" for sample in world.reference.manifest]
    blocks = torch.arange(len(prompts)).split(_BLOCK)
    points = [_points(aligners, world.reference.select_pixels(b), [prompts[k] for k in b.tolist()]) for b in blocks]
    return {each.name: torch.cat([block[each.name] for block in points]).mean().item() for each in aligners}


def _points(aligners: Sequence[Alignment], images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Of every image (N,), by judge."""
    return {each.name: each.scores(images, prompts) for each in aligners}


def _base(study: Study, judge: Callable[[Result], Mapping[str, float]], seed: int) -> Callable[[], Mapping[str, float]]:
    return lambda: judge(study.base(seed))


def _monolith(
    study: Study, judge: Callable[[Result], Mapping[str, float]], seed: int, size: int
) -> Callable[[], Mapping[str, float]]:
    def compute() -> Mapping[str, float]:
        settings = larger(study.scale.trained(1, 1, seed=seed), size)
        return judge(study.monolith(f"seed-{seed}-all-x{size}", study.world.images, settings))

    return compute


def _owners(study: Study, judge: Callable[[Result], Mapping[str, float]], seed: int) -> None:
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
    judges = list(bench.where(method=REAL)[0].figures)
    base = bench.where(method=f"{MONOLITH} x1")
    lines = []
    for method in keys_of(bench.rows, "method"):
        rows = bench.where(method=method)
        points = [cell for judge in judges for cell in (text_of(rows, judge), _reduced(rows, base, judge))]
        lines.append([method, *points, *(text_of(rows, figure) for figure in (distance, *_BESIDE))])
    columns = [column for judge in judges for column in (judge, "error left out")]
    note = (
        "Points, of 100: images whose attribute passes for that of the prompt, questions answered as the prompt says, "
        "or CLIP's cosine. For real held-out drawings they say how often the judge itself is right. Error left "
        "out: (points - monolith's) / (100 - monolith's), the paper's relative gain; negative where it is worse.\n"
    )
    parts = [asks + "\n", markdown(["method", *columns, distance, *_BESIDE], lines), note]
    return write_summary(bench, "alignment", parts)


def _reduced(rows: list[Row], base: list[Row], judge: str) -> str:
    """Over the seeds that both have."""
    theirs = {row.key["seed"]: row.figures[judge] for row in base}
    both = [error_reduction(row.figures[judge], theirs[row.key["seed"]]) for row in rows if row.key["seed"] in theirs]
    return spread(both).text() if both else ""
