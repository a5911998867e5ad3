"""Named backbones: the small ones of the demos and those of the official checkpoints, as data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from intarsia.backbone.autoencoder import Autoencoder, AutoencoderConfig
from intarsia.backbone.backbone import Backbone
from intarsia.backbone.official import PREDICTION, PROCESSES
from intarsia.backbone.uvit import UViT, UViTConfig
from intarsia.diffusion import PREDICTIONS, Cosine, Flow, Schedule, keyed_generator
from intarsia.errors import SettingsError, UnknownName


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A backbone before it has parameters; labels are added when it is built.

    Raises:
        SettingsError: the network counts classes of its own, or does not take what the autoencoder makes.
        UnknownName: no such prediction.
    """

    network: UViTConfig
    schedule: Schedule
    prediction: str
    time_scale: float
    note: str
    autoencoder: AutoencoderConfig | None = None

    def __post_init__(self) -> None:
        if self.network.num_classes:
            raise SettingsError(
                f"num_classes is {self.network.num_classes}, expected 0: the labels of a build decide it"
            )
        if self.prediction not in PREDICTIONS:
            raise UnknownName("prediction", self.prediction, PREDICTIONS)
        taken = (self.network.channels, self.network.image_size, self.network.image_size)
        if self.autoencoder and self.autoencoder.latent_shape != taken:
            made = self.autoencoder.latent_shape
            raise SettingsError(f"the autoencoder makes latents {made}, the network takes {taken}; make them equal")


def _ours(network: UViTConfig, note: str, autoencoder: AutoencoderConfig | None = None) -> Preset:
    return Preset(
        network=network, autoencoder=autoencoder, schedule=Cosine(), prediction="v", time_scale=1000.0, note=note
    )


# science.md section 3, flow matching: x_t = (1 - t) x0 + t eps, velocity = eps - x0
def _flow(network: UViTConfig, note: str, autoencoder: AutoencoderConfig | None = None) -> Preset:
    return replace(_ours(network, note, autoencoder), schedule=Flow(), prediction="velocity")


_TINY_8 = UViTConfig(image_size=8, channels=1, patch_size=2, dim=96, depth=5, heads=3)
_TINY_32 = UViTConfig(image_size=8, channels=8, patch_size=1, dim=192, depth=9, heads=4)
_CODER_32 = AutoencoderConfig(image_size=32, channels=3, latent_channels=8, widths=(64, 128))
# As many tokens as at 32 pixels, so that a step costs as much.
_TINY_64 = replace(_TINY_32, image_size=16, patch_size=2)
_CODER_64 = replace(_CODER_32, image_size=64)


def _official(network: UViTConfig, process: str, note: str) -> Preset:
    chosen = PROCESSES[process]
    return Preset(
        network=network, schedule=chosen.schedule, prediction=PREDICTION, time_scale=chosen.time_scale, note=note
    )


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "uvit-tiny-8": _ours(_TINY_8, "grey images of 8x8, the digits of the demo"),
        "uvit-tiny-8-flow": _flow(_TINY_8, "as uvit-tiny-8, by flow matching"),
        "uvit-tiny-28": _ours(
            UViTConfig(image_size=28, channels=1, patch_size=4, dim=128, depth=7, heads=4),
            "grey images of 28x28",
        ),
        "uvit-tiny-32": _ours(
            _TINY_32, "colour images of 32x32 in a small learned latent space, the emoji of the demo", _CODER_32
        ),
        "uvit-tiny-32-flow": _flow(_TINY_32, "as uvit-tiny-32, by flow matching", _CODER_32),
        "uvit-tiny-64": _ours(_TINY_64, "as uvit-tiny-32 for images of 64x64, in patches of its latents", _CODER_64),
        "uvit-pixel-32": _ours(
            UViTConfig(image_size=32, channels=3, patch_size=4, dim=192, depth=9, heads=4),
            "colour images of 32x32 without a latent space",
        ),
        "uvit-small-cifar10": _official(
            UViTConfig(image_size=32, channels=3, patch_size=2, dim=512, depth=13, heads=8),
            "continuous",
            "official cifar10_uvit_small: 32x32 pixels, 44 M parameters",
        ),
        "uvit-mid": _official(
            UViTConfig(image_size=64, channels=3, patch_size=4, dim=768, depth=17, heads=12),
            "continuous",
            "official imagenet64_uvit_mid without labels: 64x64 pixels, 131 M parameters",
        ),
        "uvit-large": _official(
            UViTConfig(image_size=32, channels=4, patch_size=2, dim=1024, depth=21, heads=16),
            "continuous",
            "official imagenet256_uvit_large without labels: Stable Diffusion's latents of 256x256, 287 M parameters",
        ),
        "uvit-huge": _official(
            UViTConfig(image_size=32, channels=4, patch_size=2, dim=1152, depth=29, heads=16, final_conv=False),
            "discrete",
            "official imagenet256_uvit_huge without labels: Stable Diffusion's latents of 256x256, 501 M parameters",
        ),
    }
)


def build(name: str, *, labels: Sequence[str] = (), seed: int = 0) -> Backbone:
    """An untrained backbone of a preset; its parameters depend on preset, labels and seed only.

    Args:
        labels: names of the classes; the label table gets one more row, the null label.
    Raises:
        UnknownName: no preset of that name.
        SettingsError: a label is named twice.
    """
    if name not in PRESETS:
        raise UnknownName("backbone preset", name, PRESETS)
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise SettingsError(f"labels named twice: {', '.join(repeated)}; name each class once")
    preset = PRESETS[name]
    with _drawn_from("network", seed):
        network = UViT(replace(preset.network, num_classes=len(labels) + 1 if labels else 0))
    autoencoder = None
    if preset.autoencoder is not None:
        with _drawn_from("autoencoder", seed):
            autoencoder = Autoencoder(preset.autoencoder)
    return Backbone(
        network,
        preset.schedule,
        prediction=preset.prediction,
        time_scale=preset.time_scale,
        labels=tuple(labels),
        autoencoder=autoencoder,
        record={"preset": name, "seed": seed},
    )


@contextlib.contextmanager
def _drawn_from(part: str, seed: int) -> Iterator[None]:
    """Initialise from a stream of its own, and leave torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(keyed_generator("initialise", part, seed).integers(2**63)))
        yield
