"""A compartment on disk: one folder that holds all that was learned from one source, and nothing else does.

adapter_model.safetensors   the adapter; in peft's layout where the kind is LoRA
adapter_config.json         peft's configuration, LoRA only
router.safetensors          the source's own part of the mixture weights
compartment.json            what it was trained on, with, and how; digests of the files above
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from intarsia.backbone.backbone import Backbone
from intarsia.backbone.uvit import UViT
from intarsia.compartments.adapters import Kind, Lora, adapter_from, adapter_settings
from intarsia.digests import canonical_json, digest_of
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.files import (
    check_format,
    json_to_bytes,
    load_tensors,
    read_checked,
    read_json,
    tensors_to_bytes,
    write_atomic,
)

ADAPTER_FILE = "adapter_model.safetensors"
PEFT_FILE = "adapter_config.json"
ROUTER_FILE = "router.safetensors"
RECORD_FILE = "compartment.json"
FORMAT = 1
PEFT_PREFIX = "base_model.model."

# What a digest of `Backbone.digests` is of, in words.
BACKBONE_PARTS = {
    "network": "network",
    "process": "forward process",
    "latent_space": "latent space",
    "text_encoder": "text encoder",
    "convention": "convention (shapes, prediction, time scale or labels)",
}


@dataclass(frozen=True)
class Compartment:
    """What was learned from one source: adapter parameters, router parts, and the record of how.

    `sources` names every source it saw. `classes` counts the samples of each label. `backbone` maps each part that
    members of a composition must share to its sha256. `count` is the number of samples, from which the default prior is
    computed. Where training was private, `privacy` says what it spent, and `classes` and `count` are public numbers.
    `prediction` is what the backbone's network predicts; None in records that are older than this field.
    """

    name: str
    sources: tuple[str, ...]
    adapter: Kind
    params: Mapping[str, Tensor]
    router: Mapping[str, Tensor]
    router_settings: Mapping[str, Any]
    classes: Mapping[str, int]
    count: int
    manifest_root: str
    backbone: Mapping[str, str]
    training: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    privacy: Mapping[str, Any] | None = None
    prediction: str | None = None

    def check_backbone(self, backbone: Backbone) -> None:
        """Raises IncompatibleError, naming the part, unless it was trained on this backbone."""
        for part, digest in backbone.digests.items():
            found = self.backbone.get(part)
            if found != digest:
                other = f"{found[:12]}… there, {digest[:12]}… here" if found else "its record does not say which"
                raise IncompatibleError(
                    f"compartment '{self.name}' was trained on another {BACKBONE_PARTS[part]} ({other}); train it "
                    "again on this backbone (--restart, restart=True in Python)"
                )

    def save(self, folder: Path) -> None:
        """Write the folder, its record last: without the record there is no compartment."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files().items():
            write_atomic(folder / name, data)

    def files(self) -> dict[str, bytes]:
        """What `save` writes, by the names of the files; the record comes last."""
        files = {ADAPTER_FILE: tensors_to_bytes(self._stored_params()), ROUTER_FILE: tensors_to_bytes(self.router)}
        if isinstance(self.adapter, Lora):
            files[PEFT_FILE] = json_to_bytes(peft_config(self.adapter))
        digests = {name: digest_of(data) for name, data in files.items()}
        return files | {RECORD_FILE: json_to_bytes(self.record() | {"files": digests, "digest": self.digest})}

    def _stored_params(self) -> dict[str, Tensor]:
        if not isinstance(self.adapter, Lora):
            return dict(self.params)
        return {f"{PEFT_PREFIX}{name}.weight": p for name, p in self.params.items()}

    def record(self) -> dict[str, Any]:
        """All of it but the tensors, JSON-able."""
        return {
            "format": FORMAT,
            "name": self.name,
            "sources": list(self.sources),
            "adapter": adapter_settings(self.adapter),
            "router": dict(self.router_settings),
            "classes": dict(self.classes),
            "count": self.count,
            "manifest_root": self.manifest_root,
            "backbone": dict(self.backbone),
            "training": dict(self.training),
            "environment": dict(self.environment),
            "privacy": None if self.privacy is None else dict(self.privacy),
        } | ({"prediction": self.prediction} if self.prediction else {})

    @classmethod
    def load(cls, folder: Path) -> Compartment:
        """Read what `save` wrote, checking every digest before a byte is parsed.

        Raises:
            CorruptError: something is missing, changed or not a compartment.
            SettingsError: a newer version of intarsia wrote it.
        """
        stored = read_json(folder / RECORD_FILE)
        check_format(folder / RECORD_FILE, stored.get("format"), FORMAT)
        try:
            digests = stored["files"]
            adapter = adapter_from(stored["adapter"])
            params = load_tensors(folder / ADAPTER_FILE, digest=digests[ADAPTER_FILE])
            router = load_tensors(folder / ROUTER_FILE, digest=digests[ROUTER_FILE])
            if isinstance(adapter, Lora):
                read_checked(folder / PEFT_FILE, digest=digests[PEFT_FILE])  # not needed here, but what peft would read
                params = {name.removeprefix(PEFT_PREFIX).removesuffix(".weight"): p for name, p in params.items()}
            loaded = cls(
                name=stored["name"],
                sources=tuple(stored["sources"]),
                adapter=adapter,
                params=params,
                router=router,
                router_settings=stored["router"],
                classes=stored["classes"],
                count=stored["count"],
                manifest_root=stored["manifest_root"],
                backbone=stored["backbone"],
                training=stored["training"],
                environment=stored["environment"],
                privacy=stored["privacy"],
                prediction=stored.get("prediction"),
            )
            whole = loaded.digest == stored["digest"]
        except (AttributeError, KeyError, TypeError, ValueError, SettingsError) as error:
            raise CorruptError(
                f"{folder / RECORD_FILE}: not a compartment's record ({error}); train it again"
            ) from error
        if not whole:
            raise CorruptError(f"{folder / RECORD_FILE}: has been changed since it was written; train it again")
        return loaded

    @property
    def digest(self) -> str:
        """One sha256 over record and tensors: two compartments with equal digests are the same bytes."""
        tensors = {f"adapter.{k}": v for k, v in self.params.items()} | {
            f"router.{k}": v for k, v in self.router.items()
        }
        parts = {k: digest_of(v.detach().cpu().contiguous().numpy().tobytes()) for k, v in tensors.items()}
        return digest_of(canonical_json(self.record() | {"tensors": parts}))


def peft_config(lora: Lora) -> dict[str, Any]:
    """The `adapter_config.json` with which plain peft loads the adapter onto a U-ViT or a UNet."""
    targets = lora.targets or UViT.usual_targets
    in_blocks = r"(in_blocks\.\d+|mid_block|out_blocks\.\d+)\.(" + "|".join(re.escape(t) for t in targets) + ")"
    return {
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": lora.scale * lora.rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": in_blocks if set(targets) <= set(UViT.targets) else list(targets),
        "task_type": None,
        "use_rslora": False,
    }


def environment(*, precision: str, threads: int, packages: Sequence[str] = ()) -> dict[str, Any]:
    """What the bytes of a training run depend on besides its inputs; `packages` are those needed beyond torch."""
    return {name: metadata.version(name) for name in packages} | {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "precision": precision,
        "threads": threads,
    }
