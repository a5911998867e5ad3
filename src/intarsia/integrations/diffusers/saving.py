"""A composition on disk: its members as peft and diffusers keep them, and what was asked for.

base/                the shared model as diffusers saves it, if it is saved too
members/00/          a LoRA in peft's layout or a whole model; router parts beside it, where weights need them
composition.json     the members' names and kinds, weights, routing, shares; digests of the files
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from intarsia.composition import ROUTINGS, Routing, routing_from
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.files import check_format, read_json, save_tensors, write_json
from intarsia.integrations.diffusers.layers import whole_name
from intarsia.integrations.diffusers.members import AnyMember, LoraMember, WholeMember
from intarsia.integrations.diffusers.parts import RouterParts
from intarsia.integrations.diffusers.reading import RECORD, Reader
from intarsia.integrations.diffusers.run import Plan
from intarsia.integrations.diffusers.trained import network_digest
from intarsia.integrations.diffusers.weighing import Sight, plan_of
from intarsia.vault.folders import new_folder

FORMAT = 1
BASE, MEMBERS = "base", "members"


@dataclass(frozen=True, eq=False)
class Composition:
    """What stands beside the shared model: members, the plan of each run, the members' router parts.

    LoRA members share a call of the base as long as it has no more than `most_rows` rows.
    """

    members: Sequence[AnyMember]
    plan: Plan
    parts: Mapping[str, RouterParts]
    most_rows: int = 0

    def check_saving(self, folder: Path) -> None:
        """Raises SettingsError for a routing without a name, or a folder where a composition, or half of one, is."""
        if (folder / RECORD).exists():
            raise SettingsError(f"{folder} holds a composition already; save this one elsewhere, or remove that one")
        if (folder / MEMBERS).exists():
            raise SettingsError(
                f"{folder / MEMBERS} is there already, without a composition's record beside it; remove it, or save "
                "elsewhere"
            )
        routing_text(self.plan.routing)

    def save(self, folder: Path, base: Any, scheduler: Mapping[str, Any]) -> None:
        """Write members and record, the record last; `base` is named in it, and saved by whoever wants it saved.

        Args:
            scheduler: `process_config` of the pipeline's; nothing without one.

        Raises:
            SettingsError: a routing of the user's own, which has no name, or a composition is there already.
            VaultError: it cannot be written.
        """
        self.check_saving(folder)
        # Made whole or not at all: what an interrupted save left behind would be read for a part of this one.
        with new_folder(folder / MEMBERS) as scratch:
            entries = [
                self._save_member(member, scratch / f"{number:02d}") for number, member in enumerate(self.members)
            ]
        shares = dict(zip(self.plan.names, self.plan.prior.tolist(), strict=True))
        record = {
            "format": FORMAT,
            "base": {"_class_name": type(base).__name__, "config": _config(base), "digest": network_digest(base)},
            "scheduler": dict(scheduler),
            "members": entries,
            "weights": self.plan.kind,
            "shares": shares,
            "routing": routing_text(self.plan.routing),
            "most_rows": self.most_rows,
        }
        write_json(folder / RECORD, record)

    def _save_member(self, member: AnyMember, place: Path) -> dict[str, Any]:
        """Its entry in the record."""
        place.mkdir()
        kind = _write_member(member, place)
        if member.name in self.parts:
            self.parts[member.name].save(place)
        files = {path.name: _digest(path) for path in sorted(place.iterdir())}
        return {"name": member.name, "kind": kind, "files": files}

    @classmethod
    def load(cls, folder: Path, reader: Reader, sight: Sight | None = None) -> Composition:
        """Read what `save` wrote for the reader's model.

        Raises:
            CorruptError: something is missing, or not what the record says.
            IncompatibleError: it was saved for another base, or another forward process or kind of prediction.
            SettingsError: a newer version of intarsia wrote it.
        """
        record = record_of(folder)
        _check_base(folder, record["base"], reader)
        try:
            _check_values(record)
            reader.check_scheduler(str(folder), record.get("scheduler", {}))
            members, parts = {}, {}
            for number, entry in enumerate(record["members"]):
                name, place = entry["name"], folder / MEMBERS / f"{number:02d}"
                _check_files(place, entry["files"])
                members[name] = reader.read(name, None if entry["kind"] == "base" else place)
                if "router.json" in entry["files"]:
                    parts[name] = RouterParts.load(name, place)
            kind, shares = record["weights"], record["shares"]
            plan = plan_of(
                list(members),
                weights=shares if kind == "prior" else kind,
                routing=routing_from(record["routing"]),
                prior=None if kind == "prior" else shares,
                parts=parts,
                sight=sight,
            )
            return cls(list(members.values()), plan, parts, record["most_rows"])
        except (KeyError, TypeError, AttributeError) as error:
            raise CorruptError(f"{folder / RECORD}: not a composition's record ({error}); save it again") from error


def _check_values(record: Mapping[str, Any]) -> None:
    """Raises TypeError for what would be read as something else, or not before images are drawn."""
    most_rows, kinds = record["most_rows"], {entry["kind"] for entry in record["members"]}
    if not isinstance(most_rows, int) or isinstance(most_rows, bool) or most_rows < 0:
        raise TypeError(f"most_rows {most_rows!r}")
    if unknown := kinds - {"base", "lora", "whole"}:
        raise TypeError(f"a member of the kind {min(map(repr, unknown))}")
    for name in ("shares", "scheduler"):
        if not isinstance(record.get(name, {}), dict):
            raise TypeError(f"{name} {record[name]!r}")


def _check_base(folder: Path, wanted: Mapping[str, Any], reader: Reader) -> None:
    """Raises IncompatibleError unless this is the model that was composed on, as far as its numbers can be compared."""
    model, theirs = reader.model, wanted.get("digest")
    ours = None if theirs is None else reader.digest
    if (type(model).__name__, _config(model)) != (wanted.get("_class_name"), wanted.get("config")):
        differs = "configuration"
    elif ours is not None and ours != theirs:
        differs = f"digest ({str(theirs)[:12]}… there, {ours[:12]}… here)"
    else:
        return
    raise IncompatibleError(
        f"{folder} was composed on a {wanted.get('_class_name')} of another {differs}; load it on the model it was "
        "made for"
    )


def record_of(folder: Path) -> dict[str, Any]:
    """The record of a composition; raises CorruptError or SettingsError if there is none that can be read here."""
    record = read_json(folder / RECORD)
    check_format(folder / RECORD, record.get("format"), FORMAT)
    if not isinstance(record.get("base"), dict):
        raise CorruptError(f"{folder / RECORD}: does not say what it was composed on; save it again")
    return record


def routing_text(routing: Routing) -> str:
    """What `routing_from` reads.

    Raises:
        SettingsError: a routing that has no name here.
    """
    if ROUTINGS.get(routing.name) is not type(routing):
        raise SettingsError(f"routing {routing.name} is not one of {', '.join(ROUTINGS)}, so it has no name")
    assert dataclasses.is_dataclass(routing)
    numbers = [str(value) for value in dataclasses.astuple(routing) if value is not None]
    return ":".join([routing.name, *numbers])


def peft_config(member: LoraMember) -> dict[str, Any]:
    """The `adapter_config.json` with which plain peft, or this package, reads a member back."""
    ranks = {layer: len(low_rank.down) for layer, low_rank in member.layers.items()}
    return {
        "peft_type": "LORA",
        "r": max(ranks.values()),
        "lora_alpha": max(ranks.values()),
        "rank_pattern": {whole_name(layer): rank for layer, rank in ranks.items()},
        "alpha_pattern": {whole_name(layer): low.scale * ranks[layer] for layer, low in member.layers.items()},
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }


def _write_member(member: AnyMember, place: Path) -> str:
    if isinstance(member, WholeMember):
        member.model.save_pretrained(place)
        return "whole"
    if not member.layers:
        return "base"
    tensors: dict[str, Tensor] = {}
    for layer, low_rank in member.layers.items():
        tensors[f"base_model.model.{layer}.lora_A.weight"] = low_rank.down
        tensors[f"base_model.model.{layer}.lora_B.weight"] = low_rank.up
    save_tensors(place / "adapter_model.safetensors", tensors)
    write_json(place / "adapter_config.json", peft_config(member))
    return "lora"


def _check_files(place: Path, files: Mapping[str, str]) -> None:
    for name, digest in files.items():
        path = place / name
        if not path.is_file() or _digest(path) != digest:
            raise CorruptError(f"{path}: missing, or not what composition.json says; restore it or save it again")


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _config(model: Any) -> dict[str, Any]:
    """What a model was built from, JSON-able, without where and with what it was saved."""
    plain = {key: value for key, value in dict(model.config).items() if not key.startswith("_")}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
