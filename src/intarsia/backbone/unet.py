"""Stable Diffusion's denoiser as a backbone's network: diffusers' `UNet2DConditionModel`, which reads text states.

Parameters have diffusers' own names, so that what is trained here is at home there. As in a U-ViT, what a compartment
changes arrives as an `Adaptation`, an argument of the forward.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from intarsia.backbone.network import Network
from intarsia.backbone.uvit import PLAIN, Adaptation
from intarsia.checks import check_whole
from intarsia.errors import SettingsError, require

CLASS = "UNet2DConditionModel"
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
"""Layers that LoRA may stand beside: those of attention, to the image itself and to the text, and its feed-forward."""

# Further inputs that such a model may ask for, and no backbone has.
_MORE_INPUTS = (
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "time_cond_proj_dim",
)


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The shape of a UNet: `architecture` holds the arguments of diffusers' class, under its names.

    Raises:
        SettingsError: a model that asks for more than x_t, time and text, or answers with something else.
    """

    architecture: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in ("sample_size", "in_channels", "cross_attention_dim"):
            check_whole(f"{CLASS}'s {name}", self.architecture.get(name))
        for name in _MORE_INPUTS:
            if self.architecture.get(name) is not None:
                raise SettingsError(
                    f"this {CLASS} has {name} {self.architecture[name]!r}: it asks for more than a noised image, a "
                    "time and a prompt; give one of Stable Diffusion 1 or 2"
                )
        if self.architecture.get("out_channels") != self.architecture["in_channels"]:
            raise SettingsError(
                f"this {CLASS} sees {self.architecture['in_channels']} channels and predicts "
                f"{self.architecture.get('out_channels')}; give one for text to image, not for painting over"
            )

    @property
    def image_size(self) -> int:
        return int(self.architecture["sample_size"])

    @property
    def channels(self) -> int:
        return int(self.architecture["in_channels"])

    @property
    def num_classes(self) -> int:
        return 0

    @property
    def context_dim(self) -> int:
        return int(self.architecture["cross_attention_dim"])

    @property
    def tokens(self) -> int:
        return self.image_size**2

    def settings(self) -> dict[str, object]:
        return {"kind": CLASS, "architecture": dict(self.architecture)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From diffusers' `config.json`: what its class takes as arguments.

        Raises:
            MissingExtra: diffusers is not installed.
            SettingsError: as the class.
        """
        known = inspect.signature(_diffusers().__init__).parameters
        return cls(architecture={name: value for name, value in sorted(values.items()) if name in known})


_under_way: ContextVar[Adaptation] = ContextVar("intarsia_unet_adaptation", default=PLAIN)


class _Adaptable(nn.Linear):
    """A linear layer that asks the adaptation of the call under way: diffusers hands no argument of ours down to it."""

    def __init__(self, name: str, like: nn.Linear):
        super().__init__(like.in_features, like.out_features, bias=like.bias is not None)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return _under_way.get().linear(self.name, super().forward, x)


class UNet(Network):
    """`UNet2DConditionModel` of diffusers, with parameters still to be loaded.

    Raises:
        MissingExtra: diffusers is not installed.
        SettingsError: diffusers knows no model of this shape.
    """

    targets: ClassVar[tuple[str, ...]] = TARGETS
    usual_targets: ClassVar[tuple[str, ...]] = TARGETS[:4]
    # Golatkar et al. 2023, supplementary: the rate of their Stable Diffusion experiments
    usual_lr: ClassVar[float | None] = 1e-4
    config: UNetConfig

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        try:
            with torch.device("meta"):  # nothing is drawn only to be overwritten
                model = _diffusers()(**config.architecture)
                for name, layer in list(model.named_modules()):
                    if isinstance(layer, nn.Linear) and name.endswith(tuple(f".{target}" for target in TARGETS)):
                        model.set_submodule(name, _Adaptable(name, layer))
        except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
            raise SettingsError(f"diffusers makes no {CLASS} of this config ({error})") from error
        model.to_empty(device="cpu")
        self._model = (model,)  # in a tuple, and only its parts are registered: so their names stay diffusers' own
        for name, part in model.named_children():
            self.add_module(name, part)

    def linear_layers(self, targets: Sequence[str]) -> dict[str, nn.Linear]:
        self.check_targets(targets)
        ends = tuple(f".{target}" for target in targets)
        return {
            name: layer for name, layer in self.named_modules() if isinstance(layer, nn.Linear) and name.endswith(ends)
        }

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, *, adaptation: Adaptation = PLAIN) -> Tensor:
        """Predict what the network was trained to predict.

        Args:
            x: (B, C, S, S) noised latents.
            timesteps: (B,) with n for the n-th of the training's steps; diffusers counts them from 0.
            context: text states (B, tokens, dim).
            adaptation: what compartments change; nothing by default.
        Returns:
            (B, C, S, S).
        """
        token = _under_way.set(adaptation)
        try:
            answer: Tensor = self._model[0](x, (timesteps - 1).clamp(min=0), context.to(x.dtype), return_dict=False)[0]
        finally:
            _under_way.reset(token)
        return answer


def _diffusers() -> Any:
    return require("diffusers.models.unets.unet_2d_condition", "diffusers").UNet2DConditionModel
