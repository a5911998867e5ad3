"""What does it cost text-to-image to share one captioned set out among sources? The paper's first version, Figure 2.

All owners' emoji are shared out among 2 and 4 sources, by subject and at random, beside the monolith of them all, with
the same sample-gradients everywhere. Images are drawn for the captions of held-out drawings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from intarsia.data import Source
from intarsia.errors import InputError
from intarsia.experiments.reproduce.alignment import alignment_scale, jury_and_judge, real_drawings
from intarsia.experiments.reproduce.bench import Bench, keys_of
from intarsia.experiments.reproduce.jury import POINTS, REAL
from intarsia.experiments.reproduce.plots import Panel, plot
from intarsia.experiments.reproduce.scale import Scale
from intarsia.experiments.reproduce.splits import compared, curves_of, monolith, tables_of
from intarsia.experiments.reproduce.study import MONOLITH, Study
from intarsia.experiments.reproduce.summary import distance_of, table, write_summary
from intarsia.experiments.reproduce.world import at_random, shared_out
from intarsia.routers import GaussianSettings

SUBJECT = "category"
KINDS = {"subject": "by subject", "random": "at random"}
COMPARED = ("gaussian", "ancestral", "naive")


# Half an hour to an hour of one core for a seed where it multiplies bfloat16: a monolith and four sets of compartments.
def caption_splits_scale(usual: Scale) -> Scale:
    """That of `alignment`, for few rules and up to four sources."""
    few = replace(alignment_scale(usual), steps=800, routers=(GaussianSettings(),))
    return replace(few, methods=COMPARED, counts=(2, 4))


def caption_splits(study: Study) -> None:
    """Fill the table."""
    world, counts = study.world, study.scale.counts
    subjects = {count: by_subject(world.images, world.attributes[SUBJECT], count) for count in counts}
    jury, judge = jury_and_judge(world)
    key: dict[str, str | int] = {"seed": "-", "split": "-", "sources": 0, "method": REAL}
    study.bench.cell(key, lambda: real_drawings(study, jury))
    for seed in study.scale.seeds:
        monolith(study, judge, seed, 1)
        for count in counts:
            compared(study, judge, seed, "subject", subjects[count])
            compared(study, judge, seed, "random", at_random(world.images, count, seed=seed))


def by_subject(images: Source, subjects: Mapping[str, str], count: int) -> list[Source]:
    """`count` sources of about as many images each, each with a contiguous share of the subjects that labels have.

    Raises:
        InputError: subjects that cannot be shared out so.
    """
    sizes = Counter(subjects[label] for sample in images.manifest if (label := sample.label) is not None)
    names = sorted(sizes)
    before = accumulate((sizes[name] for name in names), initial=0)
    middles = {name: start + sizes[name] / 2 for name, start in zip(names, before, strict=False)}
    part = {name: int(count * middle / len(images)) for name, middle in middles.items()}
    if len(set(part.values())) < count:
        raise InputError(f"{len(names)} subjects cannot be shared out evenly among {count} sources; ask for fewer")
    return shared_out(images, "subject", count, lambda sample: part[subjects[sample.label or ""]])


def report_caption_splits(bench: Bench, asks: str) -> Path:
    """A table for each way of sharing out, and plots of the distance and the points against the number of sources."""
    distance = distance_of(bench)
    (real,) = bench.where(method=REAL)
    usual = (distance, "KID", "precision", "recall")
    judges = tuple(name for name in real.figures if name not in usual)
    quality = (distance, *judges, "precision", "recall")
    base = bench.where(method=MONOLITH)
    parts = [asks + "\n", table(bench.where(split="-"), "method", quality, base)]
    for kind in keys_of(bench.rows, "split")[1:]:
        parts += tables_of(bench, kind, KINDS[kind], quality, base)
        panels = [
            Panel(curves=curves_of(bench, kind, figure), x="sources", y=figure, log=True)
            for figure in (distance, judges[0])
        ]
        plot(bench.out / f"{kind}.png", panels)
        parts.append(f"![{distance} and {judges[0]} against the number of sources {KINDS[kind]}]({kind}.png)\n")
    return write_summary(bench, "caption-splits", [*parts, POINTS + "\n"])
