"""A Stable Diffusion pipeline as a backbone: its UNet, text encoder, autoencoder, and the process of its scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from intarsia.backbone.autoencoder_kl import CONFIG_FILE, WEIGHTS_FILES, read_autoencoder
from intarsia.backbone.backbone import Backbone
from intarsia.backbone.prompts import GIVE, PromptEncoder
from intarsia.backbone.state_dicts import as_float32, differences
from intarsia.backbone.unet import CLASS, UNet, UNetConfig
from intarsia.diffusion import VPLinear
from intarsia.errors import IncompatibleError, InputError, SettingsError
from intarsia.files import load_tensors, read_json

INDEX_FILE = "model_index.json"
_PARTS: Mapping[str, str] = MappingProxyType(
    {"unet": CLASS, "text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer", "vae": "AutoencoderKL"}
)
_PREDICTIONS = MappingProxyType({"epsilon": "eps", "v_prediction": "v", "sample": "x0"})
_BETAS = MappingProxyType({"linear": False, "scaled_linear": True})


def convert_pipeline(folder: Path) -> Backbone:
    """The backbone of a text-to-image pipeline of Stable Diffusion 1 or 2, as diffusers saves it.

    Its images are of the size that the UNet was trained for. Only safetensors is read.

    Raises:
        InputError: the folder is of no such pipeline, or lacks a part of it.
        IncompatibleError: tensors are not those of their config, or the process of its scheduler is not known here.
        SettingsError: a config that makes no sense, or of a model that asks for more than text.
        CorruptError: something cannot be read.
        MissingExtra: diffusers or transformers is not installed.
    """
    index = read_json(folder / INDEX_FILE)
    for part, wanted in _PARTS.items():
        named = index.get(part)
        found = named[-1] if isinstance(named, list) and named else named
        if found not in (wanted, f"{wanted}Fast"):
            raise InputError(f"{folder / INDEX_FILE}: its {part} is a {found}, expected a {wanted}; {GIVE}")
    network = _network(folder / "unet")
    scheduler = folder / "scheduler" / "scheduler_config.json"
    schedule, prediction = process_in(read_json(scheduler), scheduler)
    return Backbone(
        network,
        schedule,
        prediction=prediction,
        time_scale=float(schedule.steps),
        autoencoder=read_autoencoder(folder, latent_size=network.config.image_size),
        text=PromptEncoder.read(folder),
        record={"pipeline": {"class": index.get("_class_name"), "name": folder.resolve().name}},
    )


def _network(place: Path) -> UNet:
    network = UNet(UNetConfig.of(read_json(place / CONFIG_FILE)))
    file = next((place / name for name in WEIGHTS_FILES if (place / name).is_file()), None)
    if file is None:
        raise InputError(f"{place}: no {WEIGHTS_FILES[0]} in it; {GIVE}")
    tensors = {name: as_float32(name, tensor, "a UNet") for name, tensor in load_tensors(file).items()}
    if problems := differences(network, tensors):
        raise IncompatibleError(f"{file}: not the UNet that its {CONFIG_FILE} describes: {problems}; {GIVE}")
    network.load_state_dict(tensors)
    return network


def process_in(values: Mapping[str, Any], where: Path | str) -> tuple[VPLinear, str]:
    """The forward process that a scheduler's configuration tells of, and what the network predicts.

    Raises:
        IncompatibleError: a process or a prediction that is not known here; `where` is what the message begins with.
    """
    prediction, betas = values.get("prediction_type", "epsilon"), values.get("beta_schedule", "linear")
    known = {"prediction_type": (prediction, _PREDICTIONS), "beta_schedule": (betas, _BETAS)}
    for name, (found, expected) in known.items():
        if not isinstance(found, str) or found not in expected:
            raise IncompatibleError(f"{where}: {name} is {found!r}, expected one of {', '.join(expected)}; {GIVE}")
    for name in ("trained_betas", "rescale_betas_zero_snr"):
        if (found := values.get(name)) is not None and found is not False:
            raise IncompatibleError(f"{where}: its {name} makes another forward process than is known here; {GIVE}")
    try:
        schedule = VPLinear(
            beta_start=values.get("beta_start", VPLinear.beta_start),
            beta_end=values.get("beta_end", VPLinear.beta_end),
            steps=values.get("num_train_timesteps", VPLinear.steps),
            scaled=_BETAS[betas],
        )
    except SettingsError as error:
        raise IncompatibleError(f"{where}: {error}; or else {GIVE}") from error
    return schedule, _PREDICTIONS[prediction]
