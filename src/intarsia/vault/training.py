"""From a source of the vault to its compartment: resumable training, router parts, and the record of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from intarsia.backbone import Backbone
from intarsia.backbone.precision import resolve_precision
from intarsia.compartments import Compartment, TrainData, Trainee, TrainSettings, environment
from intarsia.compartments.training import deterministic
from intarsia.data import Source
from intarsia.errors import IncompatibleError, SettingsError
from intarsia.files import load_sealed
from intarsia.vault.package import Core, latents_of
from intarsia.vault.parts import PartSettings, fit_parts
from intarsia.vault.records import read_record

AGAIN = "pass --restart (restart=True in Python) to train it afresh"
TRAINING_FILE = "training.json"
STATE_FILE = "state.safetensors"
SLICES = "slices"


@dataclass(frozen=True)
class Recipe:
    """How compartments are trained: what two runs must share to end with the same bytes."""

    settings: TrainSettings
    routers: Mapping[str, PartSettings]

    def record(self, backbone: Backbone, core: Core, manifest_root: str) -> dict[str, Any]:
        """All that the bytes of the compartment depend on, JSON-able."""
        precision = resolve_precision(self.settings.precision)
        threads = self.settings.threads or torch.get_num_threads()
        return {
            "settings": self.settings.settings(),
            "routers": {kind: settings.settings() for kind, settings in self.routers.items()},
            "manifest_root": manifest_root,
            "backbone": backbone.digest,
            "basis": core.basis.fingerprint(),
            "environment": environment(precision=precision, threads=threads),
        }


def read_run(folder: Path) -> dict[str, Any]:
    """The record with which a run was begun.

    Raises:
        CorruptError: it is missing or damaged.
    """
    return {key: value for key, value in read_record(folder / TRAINING_FILE).items() if key != "format"}


def steps_done(folder: Path) -> int:
    """The steps that a run has saved, from which it goes on.

    Raises:
        CorruptError: its checkpoint is damaged.
    """
    return int(load_sealed(folder / STATE_FILE)["done"]) if (folder / STATE_FILE).exists() else 0


def check_same(what: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with something that was made otherwise.

    Raises:
        IncompatibleError: the source, the backbone or the basis has changed since.
        SettingsError: the settings differ; the message names every field.
    """
    for field, meaning in (("manifest_root", "samples"), ("backbone", "backbone"), ("basis", "basis")):
        if found.get(field) != wanted[field]:
            ends = f"{str(found.get(field))[:12]}… there, {wanted[field][:12]}… here"
            raise IncompatibleError(f"{what} is of other {meaning} ({ends}); {AGAIN}")
    there, here = _flat(found), _flat(wanted)
    differing = sorted(field for field in there.keys() | here.keys() if there.get(field) != here.get(field))
    if differing:
        shown = ", ".join(f"{field} {there.get(field)!r} there, {here.get(field)!r} here" for field in differing)
        raise SettingsError(f"{what} is of other settings ({shown}); use the same settings, or {AGAIN}")


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def train_data(backbone: Backbone, source: Source) -> TrainData:
    """Latents, ids and labels of a source."""
    labels = [sample.label for sample in source.manifest]
    return TrainData(source.name, latents_of(backbone, source), source.manifest.ids, labels)


def trainee_of(backbone: Backbone, source: Source, settings: TrainSettings, folder: Path) -> Trainee:
    """A compartment in training, standing where its folder's checkpoint left it.

    Raises:
        CorruptError: the checkpoint is damaged.
    """
    with deterministic(settings.threads):
        trainee = Trainee(backbone, train_data(backbone, source), settings, folder)
    for scratch in folder.glob(".*.part"):  # of a run that was killed while it wrote
        scratch.unlink()
    trainee.restore()
    return trainee


def compartment_of(trainee: Trainee, core: Core, record: Mapping[str, Any], recipe: Recipe) -> Compartment:
    """The finished compartment: the averaged parameters, the router parts fitted here and now, and the record."""
    data, backbone = trainee.data, trainee.backbone
    tensors, settings = fit_parts(recipe.routers, data, backbone, core)
    counts = Counter(label for label in data.labels if label is not None)
    kept = ("settings", "routers", "backbone", "basis")
    return Compartment(
        name=data.name,
        sources=(data.name,),
        adapter=trainee.settings.adapter,
        params=trainee.average,
        router=tensors,
        router_settings=settings,
        classes=dict(sorted(counts.items())),
        count=len(data.ids),
        manifest_root=record["manifest_root"],
        backbone=backbone.digests,
        training={key: record[key] for key in kept},
        environment=record["environment"],
    )
