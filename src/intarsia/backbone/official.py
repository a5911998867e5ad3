"""Checkpoints of the official U-ViT repository (baofff/U-ViT), and how one of them becomes a backbone.

A checkpoint (`nnet.pth`, `nnet_ema.pth`, or a published one) is the plain state dict of a network. Its shapes tell
almost all of the configuration; what they cannot tell (heads, forward process, how many text tokens) is data here and
can be overridden.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from intarsia.backbone.backbone import Backbone
from intarsia.backbone.latent_space import LatentSpace
from intarsia.backbone.state_dicts import as_float32, differences
from intarsia.backbone.uvit import UViT, UViTConfig
from intarsia.checks import check_whole
from intarsia.diffusion import Schedule, VPLinear
from intarsia.digests import digest_of
from intarsia.errors import CorruptError, IncompatibleError, InputError, SettingsError, UnknownName
from intarsia.files import load_tensors

SD_BETAS = VPLinear(beta_start=0.00085, beta_end=0.012, scaled=True)


# log alpha_bar(t) = -(beta_min t + (beta_max - beta_min) t^2 / 2) (Song et al. 2021, eq. 33). VPLinear tends to it as
# its steps grow: with beta taken in the middle of each of 100,000 steps, log alpha_bar is right to 1e-4 of itself at
# every t. DDPM's own 1,000 betas would be 9 % off at t = 0.001, where the network was trained too.
def vp_sde(beta_min: float = 0.1, beta_max: float = 20.0, steps: int = 100_000) -> VPLinear:
    """The variance-preserving SDE that the official networks with continuous times were trained on."""
    edge = (beta_max - beta_min) / (2 * steps)
    return VPLinear(beta_start=(beta_min + edge) / steps, beta_end=(beta_max - edge) / steps, steps=steps)


@dataclass(frozen=True)
class Process:
    """A forward process, and the factor from t in [0, 1] to the timesteps that the network was trained on."""

    schedule: Schedule
    time_scale: float


# Two ways of training: train.py and train_ldm.py draw continuous times, train_ldm_discrete.py and train_t2i_discrete.py
# one of 1,000 steps (step n is t = n / 1000).
PROCESSES: Mapping[str, Process] = MappingProxyType(
    {"continuous": Process(vp_sde(), 999.0), "discrete": Process(SD_BETAS, 1000.0)}
)

# What torch.load was seen to raise on damaged bytes.
UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)

PREDICTION = "eps"  # of every official checkpoint
CLIP_TOKENS = 77  # text states of the text-to-image checkpoints


@dataclass(frozen=True)
class Width:
    """What the official checkpoints of one width have in common and no shape tells."""

    heads: int
    process: str


WIDTHS: Mapping[int, Width] = MappingProxyType(
    {
        512: Width(heads=8, process="continuous"),  # small: CIFAR-10, CelebA (the text-to-image ones are discrete)
        768: Width(heads=12, process="continuous"),  # mid: ImageNet 64
        1024: Width(heads=16, process="continuous"),  # large: ImageNet 64, 256 and 512
        1152: Width(heads=16, process="discrete"),  # huge: ImageNet 256 and 512
    }
)


def load_official(
    state_dict: Mapping[str, Tensor], *, heads: int | None = None, context_tokens: int = CLIP_TOKENS
) -> UViT:
    """The network of an official state dict, in evaluation mode, float32, with its configuration inferred.

    The result is `model(x, timesteps, context=None)`: x (B, C, S, S), timesteps (B,) on the scale the network was
    trained on (0..999), context labels (B,) or text states (B, tokens, dim). Tokens run in the official order, label
    (if any), time, text (if any), patches, and the outputs are the official ones. The tensors are copied.

    Args:
        heads: attention heads; needed for a width that no official checkpoint has.
        context_tokens: text tokens, used only where the network takes text: the shapes give just their sum with the
            patches.
    Raises:
        SettingsError: `heads` is needed, or one of the arguments does not fit the shapes.
        IncompatibleError: this is no U-ViT's state dict; missing, unexpected and misshapen tensors are listed.
    """
    tensors = {name: as_float32(name, tensor, "a U-ViT") for name, tensor in state_dict.items()}
    return _network(infer_config(tensors, heads=heads, context_tokens=context_tokens), tensors)


def infer_config(
    state_dict: Mapping[str, Tensor], *, heads: int | None = None, context_tokens: int = CLIP_TOKENS
) -> UViTConfig:
    """The configuration behind a state dict's shapes; arguments and errors are those of `load_official`."""
    if heads is not None:
        check_whole("heads", heads)
    dim, channels, patch_size, _ = _shape(state_dict, "patch_embed.proj.weight", 4)
    hidden, _ = _shape(state_dict, "mid_block.mlp.fc1.weight", 2)
    _, tokens, _ = _shape(state_dict, "pos_embed", 3)
    num_classes = _shape(state_dict, "label_emb.weight", 2)[0] if "label_emb.weight" in state_dict else 0
    context_dim = _shape(state_dict, "context_embed.weight", 2)[1] if "context_embed.weight" in state_dict else 0
    texts = context_tokens if context_dim else 0
    return UViTConfig(
        image_size=_side(tokens, 1 + bool(num_classes) + texts) * patch_size,
        patch_size=patch_size,
        channels=channels,
        dim=dim,
        depth=2 * len({name.split(".")[1] for name in state_dict if name.startswith("in_blocks.")}) + 1,
        heads=heads or _official(dim, "heads").heads,
        mlp_ratio=_ratio(hidden, dim),
        qkv_bias="mid_block.attn.qkv.bias" in state_dict,
        mlp_time_embed="time_embed.0.weight" in state_dict,
        num_classes=num_classes,
        context_dim=context_dim,
        context_tokens=texts,
        final_conv="final_layer.weight" in state_dict,
    )


def drop_label(network: UViT) -> UViT:
    """A copy of a class-conditional network without its label token, as the paper uses it (arXiv 2308.01937, fig. 3).

    The label table goes, and with it the position of its token, which is the first row of `pos_embed`; the time token
    and the patches keep theirs. No other parameter changes, and nothing stands in for the null label.

    Raises:
        SettingsError: the network has no label token.
    """
    if not network.config.num_classes:
        raise SettingsError("this U-ViT has no label token to drop; use it as it is")
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items() if name != "label_emb.weight"}
    tensors["pos_embed"] = tensors["pos_embed"][:, 1:].contiguous()
    return _network(replace(network.config, num_classes=0), tensors)


def as_backbone(
    network: UViT,
    *,
    autoencoder: LatentSpace | None = None,
    process: str | None = None,
    record: Mapping[str, Any] | None = None,
) -> Backbone:
    """A backbone without labels from an official network, with the forward process of its training; tensors are copied.

    A class-conditional network loses its label token and that token's position (see `drop_label`).

    Args:
        autoencoder: that of the latents which the network was trained on (`read_autoencoder`): the backbone takes
            images. Without it such a network becomes a backbone of latents, encoded and decoded outside (scale factor
            0.18215 on ImageNet).
        process: a key of `PROCESSES`; by default that of the official checkpoints of this width.
        record: how the network was made, kept in the backbone.
    Raises:
        SettingsError: the width is not official and `process` is not given, or the autoencoder's latents are of
            another shape than the network takes.
        UnknownName: no process of that name.
        IncompatibleError: the network takes text states.
    """
    config = network.config
    if config.context_tokens:
        raise IncompatibleError(
            f"this U-ViT takes text states ({config.context_tokens}, {config.context_dim}), a backbone takes labels or "
            "nothing; use an unconditional or a class-conditional checkpoint"
        )
    chosen = process or _official(config.dim, "process").process
    if chosen not in PROCESSES:
        raise UnknownName("process", chosen, PROCESSES)
    plain = drop_label(network) if config.num_classes else _network(config, _clones(network))
    schedule, time_scale = PROCESSES[chosen].schedule, PROCESSES[chosen].time_scale
    return Backbone(
        plain,
        schedule,
        prediction=PREDICTION,
        time_scale=time_scale,
        autoencoder=autoencoder,
        record=dict(record or {}),
    )


def read_official(path: Path, *, digest: str | None = None) -> dict[str, Tensor]:
    """The tensors in a checkpoint file, `.safetensors` or the repository's own `.pth`.

    A `.pth` file is a pickle. It is read only if its sha256 is known beforehand, and then only its tensors: nothing in
    it is executed. Convert it once (`Backbone.save` writes safetensors) and keep that.

    Args:
        digest: the file's sha256 in hex; required for `.pth`.
    Raises:
        InputError: no such file, or neither kind of file.
        SettingsError: a `.pth` without `digest`; the message holds the one found.
        CorruptError: other bytes than `digest` says, or not a file of tensors.
    """
    if path.suffix not in (".safetensors", ".pth") and (path.suffix or path.exists()):
        raise InputError(f"{path}: found a '{path.suffix}' file; give a checkpoint in .safetensors or .pth")
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a checkpoint")
    digest = digest and digest.strip().lower()
    return load_tensors(path, digest=digest) if path.suffix == ".safetensors" else _read_pickle(path, digest)


def _read_pickle(path: Path, digest: str | None) -> dict[str, Tensor]:
    data = path.read_bytes()
    found = digest_of(data)
    if digest is None:
        raise SettingsError(
            f"{path} is a pickle, which is read only if its sha256 is known; compare {found} with what its publisher "
            "says and pass it as digest"
        )
    if found != digest:
        raise CorruptError(f"{path}: sha256 is {found[:16]}…, expected {digest[:16]}…; fetch the file again")
    try:
        with warnings.catch_warnings(action="ignore"):  # remarks on the pickle's age, beside the point
            value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = str(error).split("\n", 1)[0]
        raise CorruptError(f"{path}: not a whole file of tensors ({reason}); fetch it again") from error
    if not isinstance(value, dict):
        raise CorruptError(f"{path}: holds a {type(value).__name__}, expected a state dict")
    return value


def _network(config: UViTConfig, tensors: Mapping[str, Tensor]) -> UViT:
    """A network that owns `tensors`, with every name and shape checked."""
    # On the meta device nothing is drawn or allocated only to be overwritten: the largest network takes 2 GB.
    with torch.device("meta"):
        network = UViT(config)
    if problems := differences(network, tensors):
        raise IncompatibleError(
            f"not the state dict of the U-ViT its shapes describe ({config.depth} blocks of width {config.dim}): "
            f"{problems}; give all tensors of an official checkpoint and no others"
        )
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def _clones(network: UViT) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _shape(state_dict: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state_dict:
        raise IncompatibleError(
            f"no tensor '{name}' among {len(state_dict)}: not the state dict of a U-ViT; "
            "give that of an official checkpoint (nnet.pth or nnet_ema.pth)"
        )
    shape = tuple(state_dict[name].shape)
    if len(shape) != dimensions:
        raise IncompatibleError(
            f"'{name}' has shape {shape}, expected {dimensions} dimensions; pass the state dict of a U-ViT"
        )
    return shape


def _official(dim: int, what: str) -> Width:
    if dim not in WIDTHS:
        raise SettingsError(
            f"{what} cannot be seen in the shapes, and width {dim} is not an official one "
            f"({', '.join(map(str, WIDTHS))}); pass {what}= (--{what})"
        )
    return WIDTHS[dim]


def _side(tokens: int, extras: int) -> int:
    """Patches along one side of the image, given all tokens."""
    side = math.isqrt(max(0, tokens - extras))
    if side == 0 or side**2 + extras != tokens:
        raise SettingsError(
            f"{tokens} positions less {extras} for time, label and text leave {tokens - extras} patches, expected a "
            "square; if the network takes text, pass its number of tokens as context_tokens"
        )
    return side


def _ratio(hidden: int, dim: int) -> float:
    """The ratio that gives back `hidden` when multiplied by `dim` and cut to an integer."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)
