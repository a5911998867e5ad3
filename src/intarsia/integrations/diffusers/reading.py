"""Members from where users keep them: peft, diffusers and kohya LoRA, whole models, compartments of vaults, hub ids."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import numpy as np
import safetensors
from safetensors import SafetensorError
from torch import Tensor, nn

from intarsia.backbone.text import refused_as
from intarsia.compartments import Compartment
from intarsia.errors import CorruptError, IncompatibleError, InputError, SettingsError
from intarsia.files import load_tensors, read_json
from intarsia.integrations.diffusers.arguments import Model
from intarsia.integrations.diffusers.layers import KOHYA, Target, layers_of
from intarsia.integrations.diffusers.members import AnyMember, LoraMember, WholeMember, check_fits
from intarsia.integrations.diffusers.parts import is_part
from intarsia.integrations.diffusers.plain import check_uncached
from intarsia.integrations.diffusers.process import WORD_OF, flows
from intarsia.integrations.diffusers.trained import (
    compartment_member,
    is_compartment,
    network_digest,
    process_digest,
)

RECORD = "composition.json"
"""What a saved composition has, and no member."""
PROCESS_KEYS = (
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "num_train_timesteps",
    "rescale_betas_zero_snr",
)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PICKLED = (".bin", ".ckpt", ".pt", ".pth")
LORA_FILES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
WHOLE_FILES = MappingProxyType(
    {
        None: ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
        "fp16": ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors.index.fp16.json"),
    }
)


@dataclass(frozen=True)
class Reader:
    """Reads members for one pipeline.

    `model` is the pipeline's denoiser, `component` its name there; without a pipeline nothing is known of its process.
    `drop_text_encoder` allows LoRA files that change the text encoder as well, without that part.
    """

    pipe: Any
    model: Model
    component: str
    drop_text_encoder: bool = False

    def read(self, name: str, source: str | Path | nn.Module | None) -> AnyMember:
        """A member by its path, hub id or module; None is the pipeline's own model.

        Raises:
            InputError: nothing there, or nothing that can be read.
            IncompatibleError: made for another model or another kind of prediction.
            CorruptError: damaged.
        """
        if source is None:
            return LoraMember(name, {})
        if isinstance(source, nn.Module):
            return self._module(name, source)
        if not isinstance(source, str | Path):
            raise InputError(
                f"'{name}' is a {type(source).__name__}, expected a path, a hub id, a module, or None for the model of "
                "the pipeline"
            )
        place = resolve(name, source)
        if is_compartment(place):
            return self._compartment(name, place)
        if place.is_dir() and (place / "model_index.json").exists():
            place = self._inside(name, place)
        if (place / RECORD).exists():
            raise InputError(f"'{name}': {place} is a composition itself; name its members, each by its own path")
        if place.is_dir() and (place / "config.json").exists():
            return self._load_whole(name, place)
        return self._lora(name, place)

    def _compartment(self, name: str, place: Path) -> AnyMember:
        found = Compartment.load(place)
        self._check_prediction(name, WORD_OF.get(found.prediction or ""))
        if self.pipe is not None and found.backbone.get("process") != process_digest(self.pipe.scheduler):
            raise IncompatibleError(
                f"'{name}' was trained with another forward process than this pipeline's scheduler has; use the "
                "scheduler of the pipeline of which its vault's backbone was made, or another with its betas"
            )
        return compartment_member(name, found, self.model, self.digest)

    @cached_property
    def digest(self) -> str | None:
        return network_digest(self.model)

    def _lora(self, name: str, place: Path) -> LoraMember:
        file = _lora_file(name, place)
        tensors, metadata = _tensors(file)
        self._check_prediction(name, metadata.get("modelspec.prediction_type"))
        config = _metadata_config(metadata, self.component) or _config_beside(file, tensors)
        target = Target(name, self.model, self.component, type(self.pipe), self.drop_text_encoder)
        layers = layers_of(target, tensors, config)
        check_fits(name, layers, self.model)
        return LoraMember(name, layers).to(device=self.model.device, dtype=self.model.dtype)

    def _load_whole(self, name: str, place: Path) -> WholeMember:
        found = read_json(place / "config.json").get("_class_name")
        if found != type(self.model).__name__:
            raise IncompatibleError(f"'{name}' is a {found}, this pipeline's {self.component} a {_class(self.model)}")
        loading = {"use_safetensors": True, "variant": _variant(name, place), "torch_dtype": self.model.dtype}
        try:
            model, read = type(self.model).from_pretrained(place, output_loading_info=True, **loading)
        except (OSError, ValueError, SafetensorError) as error:
            raise CorruptError(f"'{name}': {place} is not a whole {found} ({_line(error)})") from error
        if lost := sorted(read["missing_keys"]):
            raise CorruptError(f"'{name}': {place} lacks {', '.join(lost[:3])}; restore it")
        return self._whole(name, model.to(self.model.device))

    def _module(self, name: str, model: Model) -> WholeMember:
        """What the user holds is neither cast nor moved behind their back."""
        member = self._whole(name, model)
        check_uncached(model, f"'{name}'")
        ours, theirs = ((each.dtype, each.device) for each in (self.model, model))
        if ours != theirs:
            wanted, found = (f"{str(dtype).removeprefix('torch.')} on {device}" for dtype, device in (ours, theirs))
            raise IncompatibleError(
                f"'{name}' is in {found}, this pipeline's {self.component} in {wanted}; call .to(...) "
                "on the one or the other"
            )
        return member

    def _whole(self, name: str, model: Model) -> WholeMember:
        if type(model) is not type(self.model):
            raise IncompatibleError(f"'{name}' is a {_class(model)}, this pipeline's model a {_class(self.model)}")
        ours, theirs = (json.loads(json.dumps(dict(each.config), default=str)) for each in (self.model, model))
        differ = sorted(key for key in ours if not key.startswith("_") and ours[key] != theirs.get(key))
        if differ:
            key = differ[0]
            raise IncompatibleError(
                f"'{name}' has {key} {theirs.get(key)!r}, this pipeline's {self.component} {ours[key]!r}; compose "
                "models of one architecture"
            )
        return WholeMember(name, model)

    def _inside(self, name: str, pipeline: Path) -> Path:
        """Where the denoiser is in a pipeline's folder."""
        scheduler = pipeline / "scheduler" / "scheduler_config.json"
        self.check_scheduler(name, read_json(scheduler) if scheduler.exists() else {})
        place = pipeline / self.component
        if not place.is_dir():
            kind = read_json(pipeline / "model_index.json").get("_class_name")
            raise IncompatibleError(
                f"'{name}': {pipeline} holds a {kind} without a {self.component}, which this pipeline has; use one of "
                "its kind"
            )
        return place

    def check_scheduler(self, name: str, config: Mapping[str, Any]) -> None:
        """Raises IncompatibleError unless a scheduler's configuration is of this pipeline's process and prediction."""
        theirs, ours = _complete(config) if config else {}, self._process
        if theirs and ours:
            found = flows(str(theirs.get("_class_name")), theirs)
            expected = flows(type(self.pipe.scheduler).__name__, ours)
            if found != expected:
                kinds = ("diffusion", "flow matching")
                raise IncompatibleError(
                    f"'{name}' was trained for {kinds[found]}, this pipeline's scheduler is one of "
                    f"{kinds[expected]}; compose models of one forward process"
                )
        self._check_prediction(name, theirs.get("prediction_type"))
        for key in PROCESS_KEYS:
            if key in theirs and key in ours and _listed(theirs[key]) != _listed(ours[key]):
                raise IncompatibleError(
                    f"'{name}' was trained with {key} {_short(theirs[key])}, this pipeline's scheduler has "
                    f"{_short(ours[key])}; compose models of one forward process"
                )

    @property
    def _process(self) -> Mapping[str, Any]:
        return {} if self.pipe is None else self.pipe.scheduler.config

    def _check_prediction(self, name: str, theirs: object) -> None:
        ours, said = self._process.get("prediction_type"), str(theirs or "")
        if self._process and flows(type(self.pipe.scheduler).__name__, self._process):
            # Trainers write "epsilon" into whatever is no v-prediction, of flow matching too.
            ours, differs = "flow matching", said.startswith("v")
        else:
            differs = said[:1] != str(ours)[:1]  # "v" and "v_prediction", "epsilon" and "eps"
        if said and ours and differs:
            raise IncompatibleError(
                f"'{name}' was made for models that predict {said}, this pipeline's scheduler says {ours}; use one "
                "of this kind of prediction"
            )


def process_config(scheduler: Any) -> dict[str, Any]:
    """What of a scheduler's configuration says for which models it is; `Reader.check_scheduler` reads it."""
    config = scheduler.config
    kept = {key: _listed(config[key]) for key in (*PROCESS_KEYS, "prediction_type", "use_flow_sigmas") if key in config}
    return {"_class_name": type(scheduler).__name__, **kept}


def _listed(value: Any) -> Any:
    """A setting as JSON has it: a table of betas may be an array."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    """A table of betas is as long as a training has steps."""
    return "(a table)" if isinstance(listed := _listed(value), list) else repr(listed)


def _complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's configuration with what it leaves to its class, as older ones leave the kind of prediction."""
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    usual = inspect.signature(kind).parameters if inspect.isclass(kind) else {}
    return {name: each.default for name, each in usual.items() if each.default is not each.empty} | dict(config)


def resolve(name: str, source: str | Path) -> Path:
    """A path that exists: the source itself, or a local copy of a hub repository.

    Raises:
        InputError: neither.
    """
    path = Path(source).expanduser()
    if source != "" and path.exists():
        return path
    if not isinstance(source, str) or not HUB_ID.fullmatch(source):
        raise InputError(f"'{name}': there is no file or folder '{source}'; give a path or a hub id like owner/name")
    from huggingface_hub import snapshot_download

    what = f"'{name}': no folder {source} here, and the hub gave none of that id"
    with refused_as(what, "check the name and the connection, or download it and give its path"):
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors"], ignore_patterns=["*/*"]))


def _lora_file(name: str, place: Path) -> Path:
    if place.is_file():
        candidates = [place]
    else:
        candidates = [place / file for file in LORA_FILES if (place / file).exists()][:1]
        candidates = candidates or sorted(path for path in place.glob("*.safetensors") if not is_part(path))
    if len(candidates) == 1 and candidates[0].suffix == ".safetensors":
        return candidates[0]
    pickled = [path for path in [*candidates, *place.glob("*")] if path.suffix in PICKLED]
    if pickled:
        raise InputError(
            f"'{name}': {pickled[0].name} can run code when it is read; only safetensors is read here, so convert it "
            "where you trust it"
        )
    found = ", ".join(path.name for path in candidates) or "none"
    raise InputError(f"'{name}': expected one safetensors file in {place}, found {found}; give the file's own path")


def _tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = load_tensors(file)
    with safetensors.safe_open(file, framework="pt") as opened:
        return tensors, opened.metadata() or {}


def _config_beside(file: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """peft's configuration, beside a file that peft wrote; to any other file it says nothing."""
    theirs = file.name == LORA_FILES[0] or any(key.startswith("base_model.model.") for key in tensors)
    path = file.parent / "adapter_config.json"
    if not theirs or any(KOHYA.match(key) for key in tensors) or not path.exists():
        return {}
    return read_json(path)


def _variant(name: str, place: Path) -> str | None:
    """What a folder's weights are called beside their name; None for the plain files, which come first.

    Raises:
        InputError: neither is there.
    """
    for variant in (None, "fp16"):
        file, index = WHOLE_FILES[variant]
        if (place / file).exists() or (place / index).exists():
            return variant
    found = ", ".join(sorted(path.name for path in place.iterdir() if path.name != "config.json")) or "nothing"
    raise InputError(
        f"'{name}': there is no {place / WHOLE_FILES[None][0]}, nor its fp16 variant, found {found}; save or "
        "download it as safetensors"
    )


def _metadata_config(metadata: Mapping[str, str], component: str) -> dict[str, Any]:
    """peft's configuration as diffusers keeps it in the header of a file."""
    try:
        config = dict(json.loads(metadata.get("lora_adapter_metadata", "{}")))
    except (ValueError, TypeError) as error:
        raise CorruptError(
            f"the header's lora_adapter_metadata is no JSON object ({error}); save the file again"
        ) from error
    prefix = f"{component}."
    return {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)} or config


def check_names(names: list[str]) -> None:
    """Raises SettingsError unless every member has a name that can stand in a record and a message."""
    for name in names:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise SettingsError(f"a member is named {name!r}; give names that can be printed")


def _class(model: Model) -> str:
    return type(model).__name__


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
