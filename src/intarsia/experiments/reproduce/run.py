"""`intarsia reproduce`: a recipe by name, at a scale, into a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from intarsia.errors import SettingsError, UnknownName
from intarsia.experiments.reproduce.bench import Bench, OnPhase, OnStep
from intarsia.experiments.reproduce.scale import SCALES, Scale
from intarsia.experiments.reproduce.splits import report_splits, splits
from intarsia.experiments.reproduce.study import Study
from intarsia.experiments.reproduce.world import World, digits_world


@dataclass(frozen=True)
class Recipe:
    """A table: what it asks, how its cells are filled, and how they are summed up."""

    asks: str
    fill: Callable[[Study], None]
    report: Callable[[Bench, str], Path]


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "splits": Recipe("What does it cost to share one data set out among 2, 4, 8 sources?", splits, report_splits),
    }
)


def reproduce(
    name: str,
    out: Path,
    *,
    scale: str = "cpu",
    seeds: int = 3,
    budget: Callable[[Scale], Scale] = lambda scale: scale,
    on_phase: OnPhase,
    on_step: OnStep,
) -> Path:
    """Fill a table, or the rest of it; returns its summary.

    Args:
        out: a new folder, or one that an earlier run of the same recipe and settings left.
        scale: `cpu` or `paper`.
        seeds: how many; more of them can be added to a finished table.
        budget: changes the scale, such as to a few steps for a test.

    Raises:
        UnknownName: no such recipe or scale.
        SettingsError: no seeds, or the folder keeps a run with other settings.
    """
    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES)
    if scale not in SCALES:
        raise UnknownName("scale", scale, SCALES)
    if seeds < 1:
        raise SettingsError(
            f"{seeds} seeds were asked for; ask for at least one, three for an interval that means much"
        )
    chosen = replace(budget(SCALES[scale]), seeds=tuple(range(seeds)))
    on_phase("prepare the data and the judge")
    world = _world(scale)
    settings = {"recipe": name, "world": world.name, "backbone": str(world.backbone), **chosen.settings()}
    bench = Bench(out, settings, on_phase, on_step)
    recipe = RECIPES[name]
    recipe.fill(Study(bench, world, chosen))
    return recipe.report(bench, recipe.asks)


def _world(scale: str) -> World:
    return digits_world()
