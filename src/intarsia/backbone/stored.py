"""The parts of a backbone from its record: built for their settings, with parameters still to be loaded, or loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from intarsia.backbone.autoencoder import Autoencoder
from intarsia.backbone.autoencoder_kl import KLAutoencoder
from intarsia.backbone.compact import unpack
from intarsia.backbone.latent_space import LatentSpace
from intarsia.backbone.network import Network
from intarsia.backbone.prompts import WORDS, PromptEncoder
from intarsia.backbone.unet import CLASS as UNET
from intarsia.backbone.unet import UNet, UNetConfig
from intarsia.backbone.uvit import UViT, UViTConfig
from intarsia.errors import UnknownName
from intarsia.files import load_tensors, read_checked

NETWORK_FILE = "network.safetensors"
AUTOENCODER_FILE = "autoencoder.safetensors"
TEXT_FILE = "text_encoder.safetensors"
FILES = (NETWORK_FILE, AUTOENCODER_FILE, TEXT_FILE, *WORDS)
"""What may lie beside the record."""

LATENT_SPACES: Mapping[str, type[LatentSpace]] = MappingProxyType(
    {kind.kind: kind for kind in (Autoencoder, KLAutoencoder)}
)


def load_network(settings: dict[str, Any], folder: Path, files: Mapping[str, str]) -> Network:
    """One without a kind is a U-ViT; `files` holds the digests, by name.

    Raises:
        CorruptError, KeyError, TypeError, ValueError, RuntimeError, SettingsError: it cannot be made, or not of this.
    """
    unet = settings.get("kind") == UNET
    network = UNet(UNetConfig(architecture=settings["architecture"])) if unet else UViT(UViTConfig(**settings))
    network.load_state_dict(unpack(load_tensors(folder / NETWORK_FILE, digest=files[NETWORK_FILE])))
    return network


def load_autoencoder(settings: dict[str, Any] | None, folder: Path, files: Mapping[str, str]) -> LatentSpace | None:
    """One without a kind is ours. Raises as `load_network`."""
    if not settings:
        return None
    kind = settings.get("kind", Autoencoder.kind)
    if kind not in LATENT_SPACES:
        raise UnknownName("kind of autoencoder", kind, LATENT_SPACES)
    autoencoder = LATENT_SPACES[kind].from_settings(settings)
    autoencoder.load_state_dict(unpack(load_tensors(folder / AUTOENCODER_FILE, digest=files[AUTOENCODER_FILE])))
    return autoencoder


def load_text(settings: dict[str, Any] | None, folder: Path, files: Mapping[str, str]) -> PromptEncoder | None:
    """Raises as `load_network`."""
    if not settings:
        return None
    words = {name: read_checked(folder / name, digest=files[name]) for name in WORDS if name in settings["words"]}
    text = PromptEncoder.restore(settings["architecture"], folder, words)
    text.load(unpack(load_tensors(folder / TEXT_FILE, digest=files[TEXT_FILE])))
    return text
