"""Compartments of a vault as members: what was trained on a pipeline's own model, by the record in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from intarsia.backbone import process_in
from intarsia.compartments import Compartment, FullCopy, Lora
from intarsia.compartments.compartment import RECORD_FILE
from intarsia.digests import digest_of
from intarsia.errors import IncompatibleError
from intarsia.files import tensors_to_bytes
from intarsia.integrations.diffusers.arguments import Model
from intarsia.integrations.diffusers.members import AnyMember, LoraMember, LowRank, WholeMember, check_fits
from intarsia.integrations.diffusers.process import flows


def is_compartment(place: Path) -> bool:
    """Whether a vault wrote this folder."""
    return (place / RECORD_FILE).is_file()


def network_digest(model: Model) -> str | None:
    """sha256 of a model's parameters as a backbone states it; None where they are rounded, and cannot be compared.

    Nor can they where they may be elsewhere: a model that is offloaded to disk has empty tensors in their place.
    """
    tensors = model.state_dict()
    hooked = any(hasattr(module, hook) for module in model.modules() for hook in ("_diffusers_hook", "_hf_hook"))
    if hooked or not all(tensor.dtype.itemsize == 4 for tensor in tensors.values()):
        return None
    return digest_of(tensors_to_bytes(tensors))


def process_digest(scheduler: Any) -> str | None:
    """sha256 of a scheduler's forward process as a backbone states it; None for one that no backbone has."""
    if flows(type(scheduler).__name__, scheduler.config):
        return None
    try:
        schedule, _ = process_in(scheduler.config, type(scheduler).__name__)
    except IncompatibleError:
        return None
    return schedule.fingerprint()


def compartment_member(name: str, found: Compartment, model: Model, digest: str | None) -> AnyMember:
    """The member that a compartment makes.

    Args:
        digest: of the pipeline's own model, by `network_digest`; None leaves unchecked on what it was trained.

    Raises:
        IncompatibleError: it was trained on another model, or is of a kind that diffusers does not know.
    """
    theirs = found.backbone.get("network")
    if digest is not None and theirs != digest:
        raise IncompatibleError(
            f"'{name}' was trained on another model ({str(theirs)[:12]}… there, {digest[:12]}… here); use the pipeline "
            "of which its vault's backbone was made"
        )
    if isinstance(found.adapter, Lora):
        layers = {
            layer: LowRank(down, found.params[f"{layer}.lora_B"], found.adapter.scale)
            for key, down in found.params.items()
            if (layer := key.removesuffix(".lora_A")) != key
        }
        check_fits(name, layers, model)
        return LoraMember(name, layers).to(device=model.device, dtype=model.dtype)
    if not isinstance(found.adapter, FullCopy):
        raise IncompatibleError(
            f"'{name}' is a compartment of the kind '{found.adapter.name}', which is for U-ViTs; expected lora or full"
        )
    whole = type(model).from_config(model.config)
    try:
        whole.load_state_dict(dict(found.params))
    except RuntimeError as error:
        line = " ".join(str(error).split())[:200]
        raise IncompatibleError(f"'{name}' is a full copy of another model ({line}); use one of this base") from error
    return WholeMember(name, whole.eval().to(device=model.device, dtype=model.dtype))
