"""`intarsia reproduce`: a recipe by name, at a scale, into a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from intarsia.audit.clip import Clip
from intarsia.checks import check_whole
from intarsia.compartments import FullCopy
from intarsia.composition.protected import check_settings
from intarsia.errors import SettingsError, UnknownName
from intarsia.experiments.reproduce.aesthetic import SCORE, aesthetic_world
from intarsia.experiments.reproduce.asked import Choice, Inputs
from intarsia.experiments.reproduce.bench import Bench, OnPhase, OnStep, check_place
from intarsia.experiments.reproduce.recipes import RECIPES, Calculation, Recipe
from intarsia.experiments.reproduce.scale import (
    CLIP,
    DIGITS,
    EMOJI,
    METHODS,
    PAPER,
    PAPER_CLASSES,
    PAPER_TEXT,
    SINGLE,
    Scale,
)
from intarsia.experiments.reproduce.study import Study
from intarsia.experiments.reproduce.world import World
from intarsia.experiments.reproduce.worlds import digits_world, emoji_world, features_of, folder_world, mnist_world
from intarsia.files import disk_errors
from intarsia.vault.engines import Engine
from intarsia.vault.locks import folder_lock

SCALES = ("cpu", "paper")


def reproduce(
    name: str,
    out: Path,
    *,
    scale: str = "cpu",
    inputs: Inputs | None = None,
    seeds: int = 3,
    choice: Choice | None = None,
    budget: Callable[[Scale], Scale] = lambda scale: scale,
    on_phase: OnPhase,
    on_step: OnStep,
) -> Path:
    """Fill a table, or the rest of it; returns its summary.

    Args:
        out: a new folder, or one that an earlier run of the same recipe and settings left.
        scale: `cpu` or `paper`.
        inputs: data, backbone and judge, where they are not the digits', and where compartments are trained.
        seeds: how many; more of them can be added to a finished table.
        choice: what is computed, where it is not the usual.
        budget: changes the scale of a recipe that trains, such as to a few steps for a test.

    Raises:
        UnknownName: no such recipe, scale or method.
        SettingsError: no seeds or images, what is missing or would not be used, or the folder keeps a run with other
            settings.
        VaultError: another run is filling this folder's table.
    """
    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES)
    if scale not in SCALES:
        raise UnknownName("scale", scale, SCALES)
    if seeds < 1:
        raise SettingsError(
            f"{seeds} seeds were asked for; ask for at least one, three for an interval that means much"
        )
    recipe, inputs, choice = RECIPES[name], inputs or Inputs(), choice or Choice()
    choice.check(name, recipe)
    check_place(out, name)
    if isinstance(recipe, Calculation):
        _check_unused(name, scale, inputs)
        with _alone(out):
            return calculate(name, recipe, out, range(seeds), on_phase, on_step)
    make_world, usual = _plan(name, recipe, scale, inputs)
    chosen = replace(choice.of(usual), seeds=tuple(range(seeds)))
    if CLIP in chosen.methods and CLIP not in usual.methods:
        raise SettingsError("the method 'clip' is for alignment at --scale paper, with --clip; leave it out")
    _check_drawing(name, recipe, chosen, usual)
    with _alone(out):
        on_phase("prepare the data and the judge")
        world = make_world()
        bounds = budget(chosen.over(len(world.images)))
        return fill(name, out, world, bounds, on_phase, on_step, engine=inputs.engine)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two runs in one folder would write over each other's cells, so the second is refused."""
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    busy = f"{out}: another run of reproduce is filling this table; wait for it, or name another folder with --out"
    with folder_lock(out, busy):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                out.rmdir()  # only if it is empty, as nothing came of the run


def calculate(
    name: str, calculation: Calculation[Any], out: Path, seeds: Sequence[int], on_phase: OnPhase, on_step: OnStep
) -> Path:
    """Fill the table of a calculation; returns its summary.

    Raises:
        SettingsError: the folder keeps a run with other settings.
    """
    bench = Bench(out, {"recipe": name, **calculation.budget.settings()}, on_phase, on_step)
    calculation.fill(bench, seeds, calculation.budget)
    return calculation.report(bench, calculation.asks)


def fill(
    name: str,
    out: Path,
    world: World,
    scale: Scale,
    on_phase: OnPhase,
    on_step: OnStep,
    *,
    engine: Engine | None = None,
) -> Path:
    """Fill a recipe's table in a given world; returns its summary.

    Raises:
        SettingsError: the folder keeps a run with other settings.
    """
    recipe = RECIPES[name]
    assert isinstance(recipe, Recipe)
    settings = {"recipe": name, "world": world.settings(), **scale.settings()}
    bench = Bench(out, settings, on_phase, on_step)
    recipe.fill(Study(bench, world, scale, engine))
    return recipe.report(bench, recipe.asks)


def _check_drawing(name: str, recipe: Recipe, chosen: Scale, usual: Scale) -> None:
    """Refuse what would come out only after everything is trained."""
    drawn = chosen if recipe.compares else replace(chosen, methods=recipe.methods)
    if drawn.lacking:
        raise SettingsError(
            f"'{name}' fits no router part for the method '{drawn.lacking[0]}'; leave it out "
            f"(usual here: {', '.join(usual.methods)})"
        )
    drawn.check_methods(of_its_own=not recipe.compares)
    if recipe.pictured:
        _check_pictured(name, drawn)
    given, only = chosen.sampling.sampler, recipe.sampler
    if only not in (None, given):
        raise SettingsError(f"'{name}' follows images along the path of '{only}'; leave --sampler {given} out")
    if recipe.protects:
        check_settings(chosen.sampling)


def _check_pictured(name: str, scale: Scale) -> None:
    """Refuse methods that a table of pictures asked for in words cannot have."""
    if SINGLE in scale.methods:
        raise SettingsError(f"'{name}' shows every source alone; leave '{SINGLE}' out")
    joint = [method for method in scale.methods if METHODS[method][0] == "joint"]
    if joint and isinstance(scale.training.adapter, FullCopy):
        raise SettingsError(
            f"the method '{joint[0]}' reads features of a U-ViT, and this backbone has a UNet; leave it out"
        )


def _check_unused(name: str, scale: str, inputs: Inputs) -> None:
    """Refuse what a calculation would ignore."""
    given = [option.name for option in fields(inputs) if getattr(inputs, option.name) is not None]
    words = [
        *(["--scale paper"] if scale == "paper" else []),
        *(f"--{option}" for option in given),
    ]
    if words:
        raise SettingsError(f"'{name}' is computed on mixtures that are known, from nothing; leave {words[0]} out")


def _plan(name: str, recipe: Recipe, scale: str, inputs: Inputs) -> tuple[Callable[[], World], Scale]:
    """How the world is made, and the budgets there; whatever is missing or would be ignored is refused first."""
    if inputs.engine is not None and not recipe.hands_out:
        raise SettingsError(f"'{name}' measures what its trainings cost on this machine; leave --engine out")
    if not recipe.aligned and (strange := [n for n in ("clip", "answerer") if getattr(inputs, n) is not None]):
        raise SettingsError(f"'{name}' judges no image against its caption; leave --{strange[0]} out")
    if inputs.mnist is not None and (scale == "paper" or recipe.emoji == "always" or inputs.data is not None):
        raise SettingsError(f"'{name}' is computed on other data than digits here; leave --mnist out")
    if scale == "paper":
        return _plan_of_captions(name, inputs) if recipe.pictured else _plan_of_classes(name, recipe, inputs)
    if recipe.emoji == "always" and inputs.data is None:
        raise SettingsError(f"'{name}' needs --data, the folder that 'intarsia data emoji' makes")
    if recipe.emoji != "never" and (data := inputs.data) is not None:
        judges = inputs.aligners  # none are given where nothing is judged
        make = partial(emoji_world, data, inputs.backbone, inputs.inception)
        return lambda: replace(make(), aligners=judges()), recipe.scaled(EMOJI)
    return _plan_of_digits(name, recipe, inputs)


def _plan_of_digits(name: str, recipe: Recipe, inputs: Inputs) -> tuple[Callable[[], World], Scale]:
    if inputs.data is not None or inputs.inception is not None:
        given = "--inception" if inputs.data is None else "--data"
        raise SettingsError(f"'{name}' at --scale cpu is computed on digits, which come along; leave {given} out")
    usual = recipe.scaled(DIGITS)
    if inputs.mnist is None:
        return partial(digits_world, inputs.backbone), usual
    check_whole("--mnist", inputs.mnist)
    return partial(mnist_world, inputs.mnist, inputs.backbone), usual


def _plan_of_classes(name: str, recipe: Recipe, inputs: Inputs) -> tuple[Callable[[], World], Scale]:
    """The same for pictures in folders of classes, at the paper's scale."""
    if recipe.emoji == "always":
        raise SettingsError(f"'{name}' is a table of emoji, which the paper has not; leave --scale paper out")
    data, backbone, inception = inputs.data, inputs.backbone, inputs.inception
    if data is None or backbone is None:
        raise SettingsError(
            "--scale paper needs --data, a folder with one sub-folder of images per class, and --backbone, a "
            "package that 'intarsia convert' makes of imagenet256_uvit_large with its autoencoder"
        )
    usual = PAPER_CLASSES if recipe.by_label else PAPER
    return partial(folder_world, data, backbone, inception, captioned=recipe.by_label), recipe.scaled(usual)


def _plan_of_captions(name: str, inputs: Inputs) -> tuple[Callable[[], World], Scale]:
    """The same for pictures with captions, at the paper's scale."""
    data, backbone, clip = inputs.data, inputs.backbone, inputs.clip
    if data is None or backbone is None or (clip is None and inputs.answerer is None):
        raise SettingsError(
            f"'{name}' at --scale paper needs --data, a folder of pictures whose metadata.jsonl states file_name, text "
            f"and {SCORE}, --backbone, a package that 'intarsia convert' makes of a Stable Diffusion pipeline, and a "
            "judge: --answerer, --clip or both"
        )
    methods = PAPER_TEXT.methods if clip is None else (*PAPER_TEXT.methods, CLIP)

    def make() -> World:
        judges, sight = inputs.aligners(), None if clip is None else Clip.load(clip)
        world = aesthetic_world(data, backbone, features_of(inputs.inception))
        return replace(world, aligners=judges, sight=sight)

    return make, replace(PAPER_TEXT, methods=methods)
