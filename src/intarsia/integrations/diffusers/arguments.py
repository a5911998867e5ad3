"""The models of diffusers that can be composed, and how their arguments are split by rows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from intarsia.errors import SettingsError, UnknownName

Model = Any  # a model of diffusers: an nn.Module with config, device and dtype

COMPONENTS = ("unet", "transformer")
ATTENTION_ARGUMENTS = ("cross_attention_kwargs", "joint_attention_kwargs")
_OF_ADAPTERS = frozenset({"ip_adapter_masks"})  # one for each IP-adapter, not for each row


@dataclass(frozen=True)
class Kind:
    """How a class of models is called.

    `noisy` names the argument that holds x_t, `channels` the dimension of its channels; `unit_time` says that its
    timestep runs to 1 and not to the number of training steps; `shared` names arguments that all rows have in common.
    """

    noisy: str
    channels: int = 1
    unit_time: bool = False
    shared: frozenset[str] = frozenset()


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "UNet2DModel": Kind("sample"),
        "UNet2DConditionModel": Kind("sample"),
        "DiTTransformer2DModel": Kind("hidden_states"),
        "PixArtTransformer2DModel": Kind("hidden_states"),
        "SD3Transformer2DModel": Kind("hidden_states"),
        "FluxTransformer2DModel": Kind(
            "hidden_states", channels=2, unit_time=True, shared=frozenset({"img_ids", "txt_ids"})
        ),
    }
)


def kind_of(model: Model) -> Kind:
    """Raises UnknownName for a class of models that is not known here."""
    name = type(model).__name__
    if name not in KINDS:
        raise UnknownName("class of models to compose", name, KINDS)
    return KINDS[name]


def component_of(pipe: Any) -> str:
    """The name of a pipeline's denoiser.

    Raises:
        SettingsError: it is no pipeline, or has none.
    """
    if not isinstance(pipe, DiffusionPipeline):
        raise SettingsError(f"expected a diffusers pipeline, found a {type(pipe).__name__}")
    for component in COMPONENTS:
        if isinstance(getattr(pipe, component, None), nn.Module):
            return component
    raise SettingsError(f"{type(pipe).__name__} has neither unet nor transformer; compose one that has")


def check_order(pipe: Any) -> None:
    """Raises SettingsError for a pipeline that shows its denoiser an image before x_t; all others show it after."""
    if type(pipe).__name__.startswith("Marigold"):
        raise SettingsError(
            f"a {type(pipe).__name__} shows its model the photograph before the latents that are denoised, and a "
            "composition looks for them first; it cannot be composed"
        )


@dataclass(frozen=True)
class Call:
    """One call of a model, its arguments by name."""

    kind: Kind
    arguments: Mapping[str, Any]
    channels: int

    @classmethod
    def of(cls, model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Bind a call to the model's own signature.

        Raises:
            TypeError: as calling the model would.
            SettingsError: there is no timestep.
        """
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
        arguments = {**bound.arguments, **bound.arguments.get("kwargs", {})}
        arguments.pop("kwargs", None)
        if arguments.get("timestep") is None:
            raise SettingsError(f"{type(model).__name__} was called without a timestep; a composition needs it")
        kind, config = kind_of(model), model.config
        # Inpainting and editing models see more channels than they predict; DiT predicts more than it sees.
        return cls(kind, arguments, min(config.in_channels, config.out_channels or config.in_channels))

    @property
    def rows(self) -> int:
        return len(self.arguments[self.kind.noisy])

    @property
    def x_t(self) -> Tensor:
        """(B, ...), without what is only shown to the model."""
        return self.denoised(self.arguments[self.kind.noisy])

    def denoised(self, output: Tensor) -> Tensor:
        """The part of a model's output that says what x0 is, in the shape of `x_t`."""
        return output.narrow(self.kind.channels, 0, self.channels)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Tokens down and across, where the model is shown tokens and told where they lie; else None."""
        places = self.arguments.get("img_ids")
        if not isinstance(places, Tensor):
            return None
        down, across = (places.reshape(-1, places.shape[-1]).amax(dim=0)[-2:] + 1).int().tolist()
        return down, across

    @property
    def timestep(self) -> Tensor:
        """(B,)."""
        return torch.as_tensor(self.arguments["timestep"]).detach().cpu().reshape(-1).expand(self.rows)

    @property
    def scale(self) -> float:
        """The user's factor on all adapters, which pipelines hand over as `cross_attention_kwargs={"scale": ...}`."""
        for name in ATTENTION_ARGUMENTS:
            if self.arguments.get(name):
                return float(self.arguments[name].get("scale", 1.0))
        return 1.0

    def of_rows(self, rows: Tensor) -> dict[str, Any]:
        """The arguments of a call for these rows only, in this order, answered by a tuple."""
        chosen = {name: value if name in self.kind.shared else self._pick(value, rows) for name, value in self._plain()}
        return chosen | {"return_dict": False}

    def _plain(self) -> list[tuple[str, Any]]:
        """Arguments without the adapters' scale, which is none of the model's business here."""
        return [
            (name, {key: item for key, item in value.items() if key != "scale"})
            if name in ATTENTION_ARGUMENTS and value
            else (name, value)
            for name, value in self.arguments.items()
        ]

    def _pick(self, value: Any, rows: Tensor) -> Any:
        if isinstance(value, Tensor):
            return value[rows.to(value.device)] if value.ndim and len(value) == self.rows else value
        if isinstance(value, dict):
            return {key: item if key in _OF_ADAPTERS else self._pick(item, rows) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._pick(item, rows) for item in value)
        return value
