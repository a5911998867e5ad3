"""The kinds of adapter: what a compartment may train while the backbone stays frozen.

A kind is a frozen value object. It says which tensors there are (`initial`) and turns them into `Pieces`, the things
added inside the forward of a U-ViT. Nothing is ever written into the backbone: pieces travel as an argument
(`Adapted`). `TextPrompts`, which reads captions, is in a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from intarsia.backbone.network import Network
from intarsia.backbone.unet import UNet
from intarsia.backbone.uvit import UViT
from intarsia.checks import check_number, check_whole
from intarsia.compartments.pieces import MOST, Params, Pieces, Shapes, of_uvit, prompt_keys_values
from intarsia.compartments.text import TextPrompts
from intarsia.diffusion import keyed_normal
from intarsia.errors import SettingsError, UnknownName


class AdapterKind(Protocol):
    """What a new kind must offer; see CONTRIBUTING, "Add an adapter kind"."""

    name: ClassVar[str]
    default_lr: ClassVar[float]

    def shapes(self, network: Network, *, classes: int) -> Shapes:
        """What there is to train."""
        ...

    def initial(self, network: Network, *, classes: int, seed: int) -> dict[str, Tensor]:
        """Float32 tensors of these shapes to start training from, a function of shapes and seed alone."""
        ...

    def pieces(self, network: Network, params: Params) -> Pieces:
        """The pieces; of prefix sets, one per class in order and the last for no class."""
        ...


# Hu et al. 2021 (LoRA): W x + scale B A x, with A random and B zero
@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank changes of the linear layers named in `targets`, in every block; None leaves them to the network."""

    name: ClassVar[str] = "lora"
    default_lr: ClassVar[float] = 5e-3
    rank: int = 16
    scale: float = 1.0
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_whole("rank", self.rank, most=MOST)
        check_number("scale", self.scale)
        if self.targets is None:
            return
        known = (*UViT.targets, *UNet.targets)
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise SettingsError(f"LoRA targets {list(self.targets)}: name at least one, each once")
        for target in self.targets:
            if target not in known:
                raise UnknownName("LoRA target", target, known)

    def layers(self, network: Network) -> dict[str, nn.Linear]:
        """The layers that are adapted, by full name.

        Raises:
            SettingsError: the network has no layers of one of these names.
        """
        return network.linear_layers(network.usual_targets if self.targets is None else self.targets)

    def shapes(self, network: Network, *, classes: int) -> Shapes:
        shapes: Shapes = {}
        for name, layer in self.layers(network).items():
            shapes |= {
                f"{name}.lora_A": (self.rank, layer.in_features),
                f"{name}.lora_B": (layer.out_features, self.rank),
            }
        return shapes

    def initial(self, network: Network, *, classes: int, seed: int) -> dict[str, Tensor]:
        params = {name: torch.zeros(shape) for name, shape in self.shapes(network, classes=classes).items()}
        for name, layer in self.layers(network).items():
            noise = keyed_normal((self.rank, layer.in_features), "lora", seed, name)
            params[f"{name}.lora_A"] = noise / layer.in_features**0.5
        return params

    def pieces(self, network: Network, params: Params) -> Pieces:
        names = [name.removesuffix(".lora_A") for name in params if name.endswith(".lora_A")]
        return Pieces({name: (params[f"{name}.lora_A"], self.scale * params[f"{name}.lora_B"]) for name in names})

    def merged(self, network: Network, params: Params) -> dict[str, Tensor]:
        """The weights W + scale B A that a network without adapter would need to do the same."""
        pieces = self.pieces(network, params).low_rank
        return {f"{name}.weight": network.get_parameter(f"{name}.weight") + b @ a for name, (a, b) in pieces.items()}


# Jia et al. 2022 (visual prompt tuning, deep); the paper's own adapter (science.md section 4)
@dataclass(frozen=True, kw_only=True)
class DeepPrompts:
    """Trained tokens appended to the input of every layer and dropped from its output.

    With `per_class`, one set of tokens per class of the source and one for no class. As a token's own output is
    dropped, only its keys and values can matter: no query and no feed-forward is ever computed for it.
    """

    name: ClassVar[str] = "prompts"
    default_lr: ClassVar[float] = 0.1
    tokens: int = 64
    per_class: bool = False

    def __post_init__(self) -> None:
        check_whole("tokens", self.tokens, most=MOST)

    def shapes(self, network: Network, *, classes: int) -> Shapes:
        sets, config = classes + 1 if self.per_class else 1, of_uvit(self, network).config
        return {f"{block}.prompts": (sets, self.tokens, config.dim) for block in config.blocks}

    def initial(self, network: Network, *, classes: int, seed: int) -> dict[str, Tensor]:
        return {
            name: keyed_normal(shape, "prompts", seed, name.removesuffix(".prompts"))
            for name, shape in self.shapes(network, classes=classes).items()
        }

    def pieces(self, network: Network, params: Params) -> Pieces:
        uvit = of_uvit(self, network)
        return Pieces(prefix={b: prompt_keys_values(uvit, b, params[f"{b}.prompts"]) for b in uvit.config.blocks})


# He et al. 2022 (parallel adapter): y + up relu(down x) + bias, beside the feed-forward
@dataclass(frozen=True, kw_only=True)
class Parallel:
    """A small network beside every feed-forward layer."""

    name: ClassVar[str] = "parallel"
    default_lr: ClassVar[float] = 5e-3
    width: int = 64

    def __post_init__(self) -> None:
        check_whole("width", self.width, most=MOST)

    def shapes(self, network: Network, *, classes: int) -> Shapes:
        config = of_uvit(self, network).config
        each: Shapes = {"down": (self.width, config.dim), "up": (config.dim, self.width), "bias": (config.dim,)}
        return {f"{block}.{name}": shape for block in config.blocks for name, shape in each.items()}

    def initial(self, network: Network, *, classes: int, seed: int) -> dict[str, Tensor]:
        params = {name: torch.zeros(shape) for name, shape in self.shapes(network, classes=classes).items()}
        config = of_uvit(self, network).config
        for block in config.blocks:
            params[f"{block}.down"] = keyed_normal((self.width, config.dim), "parallel", seed, block) / config.dim**0.5
        return params

    def pieces(self, network: Network, params: Params) -> Pieces:
        blocks = of_uvit(self, network).config.blocks
        return Pieces(branch={b: (params[f"{b}.down"], params[f"{b}.up"], params[f"{b}.bias"]) for b in blocks})


@dataclass(frozen=True, kw_only=True)
class FullCopy:
    """Every parameter of the network, trained on: no sharing, the most a compartment can learn."""

    name: ClassVar[str] = "full"
    default_lr: ClassVar[float] = 3e-4

    def shapes(self, network: Network, *, classes: int) -> Shapes:
        return {name: tuple(p.shape) for name, p in network.named_parameters()}

    def initial(self, network: Network, *, classes: int, seed: int) -> dict[str, Tensor]:
        return {name: p.detach().float().clone() for name, p in network.named_parameters()}

    def pieces(self, network: Network, params: Params) -> Pieces:
        return Pieces()


Kind = Lora | DeepPrompts | Parallel | TextPrompts | FullCopy
ADAPTERS: dict[str, type[Kind]] = {kind.name: kind for kind in (Lora, DeepPrompts, Parallel, TextPrompts, FullCopy)}


def adapter_settings(kind: Kind) -> dict[str, Any]:
    """The kind and its settings, JSON-able; `adapter_from` reads them."""
    return {"kind": kind.name} | {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(kind).items()}


def adapter_from(settings: Mapping[str, Any]) -> Kind:
    """The kind that `adapter_settings` described.

    Raises:
        UnknownName: no such kind.
        SettingsError: a setting the kind does not have, or a value it refuses.
    """
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    name = values.pop("kind", "")
    if name not in ADAPTERS:
        raise UnknownName("adapter kind", str(name), ADAPTERS)
    try:
        return ADAPTERS[name](**values)
    except TypeError as error:
        raise SettingsError(f"adapter '{name}' has other settings than {sorted(values)} ({error})") from error
