"""Back to where a training had not yet met some samples (SISA, science.md section 4): what of it is still clean.

A checkpoint after slice k depends on the samples of slices 1 to k alone. So without the samples that leave, the run
goes on from the last checkpoint before the first of their slices, and ends with the bytes of a run that never had them.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, Extension, Slicing
from intarsia.compartments.adapters import DeepPrompts
from intarsia.data import Manifest
from intarsia.errors import CorruptError, IntarsiaError
from intarsia.files import read_sealed
from intarsia.vault.material import NEIGHBOURS, Material
from intarsia.vault.package import Core
from intarsia.vault.records import write_record
from intarsia.vault.store import Store
from intarsia.vault.training import SLICES, STATE_FILE, TRAINING_FILE, Recipe, read_run, run_of, steps_done


@dataclass(frozen=True)
class Learned:
    """A training, finished or not: the record of its run, and the folder of its checkpoints.

    `done` steps are in its state; None where there is no state but those of the slices.
    """

    record: dict[str, Any]
    checkpoints: Path
    done: int | None

    @property
    def recipe(self) -> Recipe:
        return Recipe.read(self.record)

    def intact(self, most: int) -> int:
        """How many slices, up to `most`, have a checkpoint that can be read, as all before it can."""
        for number in range(1, most + 1):
            try:
                read_sealed(_slice(self.checkpoints, number))
            except IntarsiaError:
                return number - 1
        return most


@dataclass(frozen=True)
class Rollback:
    """Where a training goes on: after `kept` slices, or with the state of the run itself, at step `done`.

    `after` and `record` are the samples and the record of the run without those that leave. `because` says why slices
    are lost that hold none of them.
    """

    learned: Learned
    after: Material
    record: dict[str, Any]
    kept: int
    done: int
    because: str

    @property
    def slicing(self) -> Slicing:
        return Recipe.read(self.record).slicing

    @property
    def again(self) -> tuple[int, ...]:
        """The slices (from 1) that are trained again, or for the first time."""
        return tuple(range(self.done // self.slicing.per_slice + 1, self.slicing.count + 1))

    @property
    def steps(self) -> int:
        return self.slicing.total - self.done

    def gradients(self) -> tuple[int, int]:
        """Gradients of single images from here to the end, and from the beginning, for the samples that stay."""
        slicing, rows = self.slicing, int(self.record["settings"]["rows"])
        first = min(number for number, _, _ in _joins(slicing, self.after)) * slicing.per_slice
        return (slicing.total - max(first, self.done)) * rows, (slicing.total - first) * rows

    def write(self, folder: Path) -> None:
        """Make the folder of the run in an empty folder: it looks as an interruption would have left it."""
        write_record(folder / TRAINING_FILE, self.record)
        for number in range(1, self.kept + 1):
            shutil.copyfile(_slice(self.learned.checkpoints, number), _slice(folder, number))
        if self.done > self.kept * self.slicing.per_slice:
            shutil.copyfile(self.learned.checkpoints / STATE_FILE, folder / STATE_FILE)
        elif self.kept:
            shutil.copyfile(_slice(folder, self.kept), folder / STATE_FILE)


def learned_by_compartment(folder: Path) -> Learned:
    """What a finished compartment was trained by.

    Raises:
        CorruptError: it is damaged.
    """
    compartment = Compartment.load(folder)
    return Learned(run_of(compartment), folder / SLICES, None)


def learned_by_run(store: Store, name: str) -> Learned:
    """What an unfinished training has come to.

    Raises:
        CorruptError: its record is damaged.
    """
    folder, done = store.training(name), None
    with contextlib.suppress(CorruptError):
        done = steps_done(folder)
    return Learned(read_run(folder), folder, done)


def roll_back(
    learned: Learned,
    before: Material,
    after: Material,
    *,
    backbone: Backbone,
    core: Core,
    new: Sequence[Extension] = (),
) -> Rollback:
    """Where the training goes on with the samples of `after` in place of those of `before`.

    Args:
        new: the slices of samples that have come.

    Raises:
        CorruptError: the record of the training cannot be used.
    """
    recipe, slicing = learned.recipe, learned.recipe.slicing
    left, places = _extensions_left(slicing, before.own, after.own)
    extended = replace(recipe, extensions=(*left, *new))
    wanted = _record_here(extended, learned.record, after, backbone, core)
    because = _strange(learned.record, wanted, before) or _classes_change(recipe, before.manifest, after.manifest)
    changed = _joins(slicing, before) ^ _joins(extended.slicing, after)
    first = 0 if because else min([*places, *(number for number, _, _ in changed)])
    done = slicing.total if learned.done is None else learned.done
    clean = min(first, done // slicing.per_slice)
    kept = learned.intact(clean)
    if kept < clean:
        because = f"the checkpoint of slice {kept + 1} is missing or damaged"
    elif learned.done is not None and learned.done <= first * slicing.per_slice:
        return Rollback(learned, after, wanted, kept, learned.done, because)
    return Rollback(learned, after, wanted, kept, kept * slicing.per_slice, because)


def _joins(slicing: Slicing, material: Material) -> set[tuple[int, str, str | None]]:
    """The slice that each sample joins, its id and label: all that training sees of it."""
    return {
        (slicing.of(sample.id, batch=sample.batch, risky=sample.risk == "high"), sample.id, sample.label)
        for sample in material.manifest
    }


def _extensions_left(slicing: Slicing, before: Manifest, after: Manifest) -> tuple[list[Extension], list[int]]:
    """The extensions of which samples are left, by the numbers of their batches now; and where the slices change.

    Where nothing is left of the base, the extension after it takes its place, as if its samples had come first.
    """
    numbers = {sample.id: sample.batch for sample in after}
    place = {sample.batch: numbers[sample.id] for sample in before if sample.id in numbers}
    left = [replace(each, batch=place[each.batch]) for each in slicing.extensions if place.get(each.batch)]
    lost = [slicing.stages[each.batch][0] for each in slicing.extensions if each.batch not in place]
    base = [0 for each in slicing.extensions if place.get(each.batch) == 0]
    return left, [*lost, *base, slicing.count]


def _record_here(
    recipe: Recipe, record: dict[str, Any], after: Material, backbone: Backbone, core: Core
) -> dict[str, Any]:
    """The record of the run if it were begun here and now, with the number of threads it was begun with."""
    try:
        threads = int(record["environment"]["threads"])
    except (KeyError, TypeError, ValueError):
        threads = torch.get_num_threads()
    return recipe.record(backbone, core, after.roots) | {"environment": recipe.environment(backbone, threads)}


def _strange(record: dict[str, Any], wanted: dict[str, Any], before: Material) -> str:
    """Why the checkpoints are not those of a run here and now, in words; empty if they are."""
    if {key: record[key] for key in ("manifest_root", NEIGHBOURS) if key in record} != before.roots:
        return "it learned from other samples than its source holds, or its neighbours"
    for part in ("backbone", "basis"):
        if record[part] != wanted[part]:
            return f"it was trained with another {part}"
    there, here = record["environment"], wanted["environment"]
    differing = [key for key in here if here[key] != there.get(key)]
    shown = ", ".join(f"{key} {there.get(key)!r} then, {here[key]!r} now" for key in differing)
    return f"the environment is another ({shown})" if differing else ""


def _classes_change(recipe: Recipe, before: Manifest, after: Manifest) -> str:
    """Prompts per class are a table of the source's classes, whose shape tells how many there were."""
    adapter = recipe.settings.adapter
    if not (isinstance(adapter, DeepPrompts) and adapter.per_class):
        return ""
    lost = {sample.label for sample in before} - {sample.label for sample in after} - {None}
    return f"no sample is left of {', '.join(sorted(map(repr, lost)))}, and it has prompts per class" if lost else ""


def _slice(folder: Path, number: int) -> Path:
    return folder / f"slice-{number}.safetensors"
