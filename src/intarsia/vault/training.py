"""From a source of the vault to its compartment: resumable training, router parts, and the record of both."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from intarsia.backbone import Backbone
from intarsia.backbone.precision import resolve_precision
from intarsia.compartments import (
    Compartment,
    Extension,
    Mechanism,
    Privacy,
    PrivateSteps,
    SecretNoise,
    Slicing,
    TextPrompts,
    TrainData,
    Trainee,
    TrainSettings,
    environment,
    train,
)
from intarsia.compartments.accounting import mechanism_for
from intarsia.compartments.adapters import adapter_from
from intarsia.compartments.training import Keep, deterministic
from intarsia.data import Source
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.files import load_sealed
from intarsia.vault.captions import with_captions
from intarsia.vault.material import NEIGHBOURS, neighbours_in
from intarsia.vault.package import Core, latents_of
from intarsia.vault.parts import PARTS, PartSettings, fit_parts, public_counts
from intarsia.vault.records import read_record

AGAIN = "pass --restart (restart=True in Python) to train it afresh"
GO_ON = "go on with its own settings (--resume; Vault.resume in Python)"
TRAINING_FILE = "training.json"
STATE_FILE = "state.safetensors"
SLICES = "slices"
EXTENSIONS = "extensions"
MECHANISM = "mechanism"
_KEPT = ("settings", "routers", "backbone", "basis")
TEXT_PACKAGES = ("transformers", "diffusers")  # of which a backbone that reads text is made
_TRIED = 3  # steps by which the time of many is told


@dataclass(frozen=True)
class Recipe:
    """How compartments are trained: what two runs must share to end with the same bytes.

    Of a private training `mechanism` says what it does to its images; such a run has noise of its own besides.
    """

    settings: TrainSettings
    routers: Mapping[str, PartSettings]
    extensions: tuple[Extension, ...] = ()
    mechanism: Mechanism | None = None

    def of_source(self, size: int) -> Recipe:
        """For a source of so many images: how much noise keeps it private, if it is to be.

        Raises:
            As `mechanism_for`.
        """
        settings = self.settings
        if settings.privacy is None:
            return self
        steps, router = self.slicing.total, "gaussian" in self.routers
        mechanism = mechanism_for(settings.privacy, size=size, rows=settings.rows, steps=steps, router=router)
        return replace(self, mechanism=mechanism)

    @property
    def slicing(self) -> Slicing:
        return Slicing(self.settings.steps, self.settings.slices, self.extensions)

    def environment(self, backbone: Backbone, threads: int | None = None) -> dict[str, Any]:
        """What the bytes depend on here and now, with this number of threads or that of the settings."""
        reads = isinstance(self.settings.adapter, TextPrompts)
        return environment(
            precision=resolve_precision(self.settings.precision),
            threads=threads or self.settings.threads or torch.get_num_threads(),
            packages=TEXT_PACKAGES if backbone.text is not None else TEXT_PACKAGES[:1] if reads else (),
        )

    def record(self, backbone: Backbone, core: Core, roots: Mapping[str, Any]) -> dict[str, Any]:
        """All that the bytes of the compartment depend on, JSON-able; `roots` tells its samples (`Material.roots`)."""
        extended = {EXTENSIONS: [asdict(each) for each in self.extensions]} if self.extensions else {}
        private = {MECHANISM: self.mechanism.record()} if self.mechanism else {}
        return extended | {
            **private,
            "settings": self.settings.settings(),
            "routers": {kind: settings.settings() for kind, settings in self.routers.items()},
            **roots,
            "backbone": backbone.digest,
            "basis": core.basis.fingerprint(),
            "environment": self.environment(backbone),
        }

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Recipe:
        """The recipe that a record was made of.

        Raises:
            CorruptError: it is none.
        """
        try:
            values = {**record["settings"], "adapter": adapter_from(record["settings"]["adapter"])}
            if values.get("privacy") is not None:
                values["privacy"] = Privacy(**values["privacy"])
            mechanism = Mechanism(**record[MECHANISM]) if MECHANISM in record else None
            routers = {kind: PARTS[kind].settings(**settings) for kind, settings in record["routers"].items()}
            extensions = tuple(Extension(**each) for each in record.get(EXTENSIONS, ()))
            return cls(TrainSettings(**values), routers, extensions, mechanism)
        except (KeyError, TypeError, SettingsError) as error:
            raise CorruptError(f"the record of a training cannot be read ({error}); {AGAIN}") from error


def trainable(settings: TrainSettings, backbone: Backbone) -> TrainSettings:
    """The settings with what was left open as this backbone has it.

    Raises:
        SettingsError: it cannot be trained so.
    """
    if settings.privacy is not None and backbone.text is not None:
        raise SettingsError(
            "private training is for backbones without a text encoder of their own, and this one has one; leave "
            "privacy out (--dp-epsilon), or make the vault on another backbone"
        )
    return settings.on(backbone.network)


def read_run(folder: Path) -> dict[str, Any]:
    """The record with which a run was begun.

    Raises:
        CorruptError: it is missing or damaged.
    """
    return {key: value for key, value in read_record(folder / TRAINING_FILE).items() if key != "format"}


def run_of(compartment: Compartment) -> dict[str, Any]:
    """The record of the run that made a compartment.

    Raises:
        CorruptError: the compartment was not made by a run of a vault.
    """
    if missing := sorted(set(_KEPT) - set(compartment.training)):
        raise CorruptError(f"compartment '{compartment.name}' does not say its {', '.join(missing)}; {AGAIN}")
    kept = kept_of(compartment.training)
    return kept | {"manifest_root": compartment.manifest_root, "environment": dict(compartment.environment)}


def steps_done(folder: Path) -> int:
    """The steps that a run has saved, from which it goes on.

    Raises:
        CorruptError: its checkpoint is damaged.
    """
    return int(load_sealed(folder / STATE_FILE)["done"]) if (folder / STATE_FILE).exists() else 0


def check_same(
    what: str, found: Mapping[str, Any], wanted: Mapping[str, Any], *, advice: str = "use the same settings"
) -> None:
    """Refuse to go on with something that was made otherwise.

    Raises:
        IncompatibleError: the source, the backbone or the basis has changed since.
        SettingsError: the settings differ; the message names every field.
    """
    for field, meaning in (("manifest_root", "samples"), ("backbone", "backbone"), ("basis", "basis")):
        if found.get(field) != wanted[field]:
            ends = f"{str(found.get(field))[:12]}… there, {wanted[field][:12]}… here"
            raise IncompatibleError(f"{what} is of other {meaning} ({ends}); {AGAIN}")
    for name, root in wanted.get(NEIGHBOURS, {}).items():
        if found.get(NEIGHBOURS, {}).get(name, root) != root:
            raise IncompatibleError(f"{what} learned from other samples of its neighbour '{name}'; {AGAIN}")
    there, here = _flat(found), _flat(wanted)
    differing = sorted(field for field in there.keys() | here.keys() if there.get(field) != here.get(field))
    if differing:
        shown = ", ".join(f"{field} {there.get(field)!r} there, {here.get(field)!r} here" for field in differing)
        raise SettingsError(f"{what} is of other settings ({shown}); {advice}, or {AGAIN}")


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def train_data(backbone: Backbone, source: Source) -> TrainData:
    """Latents, ids and labels of a source, without its captions."""
    return data_of(source, latents_of(backbone, source))


def data_of(source: Source, latents: Tensor) -> TrainData:
    """The same, with latents (N, *latent_shape) that are there already."""
    samples = source.manifest.samples
    return TrainData(
        source.name,
        latents,
        source.manifest.ids,
        [sample.label for sample in samples],
        [sample.batch for sample in samples],
        [sample.risk == "high" for sample in samples],
    )


def trainee_of(
    backbone: Backbone,
    source: Source,
    record: Mapping[str, Any],
    folder: Path | None,
    *,
    data: TrainData | None = None,
    noise: SecretNoise | None = None,
    keep: Keep | None = None,
) -> Trainee:
    """A compartment in training, standing where its folder's checkpoint left it; `data` is the source's, if known.

    Without a folder it begins at the beginning, and writes nothing; `keep` is handed its checkpoints.
    It uses the threads that the record states, however many the process has now.

    Args:
        noise: of a private training whose key is not in the folder.

    Raises:
        CorruptError: the checkpoint is damaged, or the key of a private training is gone.
    """
    recipe = Recipe.read(record)
    settings = replace(recipe.settings, threads=record["environment"]["threads"])
    with deterministic(settings.threads):
        data = with_captions(data or train_data(backbone, source), source, backbone, settings.adapter)
        private = private_steps(recipe, folder, noise)
        trainee = Trainee(backbone, data, settings, folder, extensions=recipe.extensions, private=private, keep=keep)
    for scratch in folder.glob(".*.part") if folder else ():  # of a run that was killed while it wrote
        scratch.unlink()
    trainee.restore()
    return trainee


def private_steps(recipe: Recipe, folder: Path | None, noise: SecretNoise | None = None) -> PrivateSteps | None:
    """How a recipe comes to private gradients, with this noise or the key in `folder`; None if it is not private.

    Raises:
        CorruptError: the key is gone.
    """
    if recipe.settings.privacy is None or recipe.mechanism is None:
        return None
    known = noise or (SecretNoise.read(folder) if folder else SecretNoise.generate())
    return PrivateSteps(recipe.settings.privacy, recipe.mechanism, known)


def seconds_per_step(backbone: Backbone, source: Source, record: Mapping[str, Any]) -> float:
    """How long a step of such a run takes here and now, by a few that are thrown away; a handful of images will do."""
    recipe = Recipe.read(record)
    threads = record["environment"]["threads"]
    tried = replace(recipe.settings, steps=_TRIED + 1, slices=1, threads=threads)
    private = private_steps(recipe, None)
    if private is not None:  # of the handful, all take part
        private = replace(private, mechanism=replace(private.mechanism, rate=1.0))
    with deterministic(threads):
        data = with_captions(train_data(backbone, source), source, backbone, tried.adapter)
        trainee = Trainee(backbone, data, tried, private=private)
    steps = train([trainee])
    next(steps)  # the first one finds its memory
    began = time.perf_counter()
    for _ in steps:
        pass
    return (time.perf_counter() - began) / _TRIED


def compartment_of(
    trainee: Trainee, core: Core, record: Mapping[str, Any], *, privacy: Mapping[str, Any] | None = None
) -> Compartment:
    """The finished compartment: the averaged parameters, the router parts fitted here and now, and the record.

    `privacy` is what it says of that; of a private training it tells no number of images but the public one.
    """
    data, backbone, private = trainee.data, trainee.backbone, trainee.private
    tensors, settings = fit_parts(Recipe.read(record).routers, data, backbone, core, private=private)
    counts: Mapping[str, int] = Counter(label for label in data.labels if label is not None)
    if private is not None:
        counts = public_counts(tensors, settings, data, private.mechanism.size)
    return Compartment(
        name=data.name,
        sources=tuple(sorted({data.name, *neighbours_in(record)})),
        adapter=trainee.settings.adapter,
        params=trainee.average,
        router=tensors,
        router_settings=settings,
        classes=dict(sorted(counts.items())),
        count=private.mechanism.size if private else len(data.ids),
        manifest_root=record["manifest_root"],
        backbone=backbone.digests,
        training=kept_of(record),
        environment=record["environment"],
        privacy=privacy,
        prediction=backbone.prediction,
    )


def kept_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a compartment says of the run that made it, besides its own samples and the environment."""
    return {key: record[key] for key in (*_KEPT, EXTENSIONS, NEIGHBOURS, MECHANISM) if key in record}
