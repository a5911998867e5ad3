"""A second U-ViT, written from the paper with loops and no modules, as the reference for ours; small networks; images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from intarsia.backbone import Autoencoder, AutoencoderConfig, Backbone, UViT, UViTConfig
from intarsia.diffusion import Cosine, keyed_normal


def official_state(
    *,
    size: int = 8,
    patch: int = 2,
    channels: int = 3,
    dim: int = 24,
    half: int = 2,
    hidden: int = 96,
    classes: int = 0,
    text: tuple[int, int] = (0, 0),
    time_mlp: bool = False,
    bias: bool = False,
    conv: bool = True,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Random tensors under the names of the official checkpoints; `half` blocks on each side, `text` = (tokens, width)."""
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, 1 + bool(classes) + text[0] + (size // patch) ** 2, dim),
        "patch_embed.proj.weight": (dim, channels, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "decoder_pred.weight": (patch**2 * channels, dim),
        "decoder_pred.bias": (patch**2 * channels,),
    }
    linear: dict[str, tuple[int, int]] = {}
    if time_mlp:
        linear |= {"time_embed.0": (4 * dim, dim), "time_embed.2": (dim, 4 * dim)}
    if text[0]:
        linear |= {"context_embed": (dim, text[1])}
    if classes:
        shapes["label_emb.weight"] = (classes, dim)
    if conv:
        shapes |= {"final_layer.weight": (channels, channels, 3, 3), "final_layer.bias": (channels,)}
    sides = [f"{side}_blocks.{i}" for side in ("in", "out") for i in range(half)]
    for block in [*sides, "mid_block"]:
        shapes |= {f"{block}.norm{k}.{part}": (dim,) for k in (1, 2) for part in ("weight", "bias")}
        shapes[f"{block}.attn.qkv.weight"] = (3 * dim, dim)
        if bias:
            shapes[f"{block}.attn.qkv.bias"] = (3 * dim,)
        linear |= {
            f"{block}.attn.proj": (dim, dim),
            f"{block}.mlp.fc1": (hidden, dim),
            f"{block}.mlp.fc2": (dim, hidden),
        }
        if block.startswith("out"):
            linear[f"{block}.skip_linear"] = (dim, 2 * dim)
    shapes |= {f"{name}.weight": shape for name, shape in linear.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    return {name: 0.2 * keyed_normal(shape, "state", seed, name) for name, shape in shapes.items()}


def plain_uvit(
    p: Mapping[str, Tensor], x: Tensor, timesteps: Tensor, context: Tensor | None = None, *, heads: int
) -> Tensor:
    """Bao et al. 2022, section 3 and appendix: the network of a state dict, spelt out; no code in common with ours."""
    patch, dim = p["patch_embed.proj.weight"].shape[-1], p["pos_embed"].shape[-1]
    side, channels = x.shape[-1] // patch, x.shape[1]
    half = sum(name.endswith("skip_linear.weight") for name in p)

    def linear(name: str, y: Tensor) -> Tensor:
        bias = p.get(f"{name}.bias", torch.zeros(()))
        return torch.einsum("...i,oi->...o", y, p[f"{name}.weight"]) + bias

    def norm(name: str, y: Tensor) -> Tensor:
        centred = y - y.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]
        )

    def attend(name: str, y: Tensor) -> Tensor:
        q, k, v = linear(f"{name}.qkv", y).split(dim, dim=-1)
        each = dim // heads
        parts = []
        for h in range(heads):
            own = slice(h * each, (h + 1) * each)
            scores = torch.einsum("bqd,bkd->bqk", q[..., own], k[..., own]) / math.sqrt(each)
            share = scores.exp() / scores.exp().sum(-1, keepdim=True)
            parts.append(torch.einsum("bqk,bkd->bqd", share, v[..., own]))
        return linear(f"{name}.proj", torch.cat(parts, dim=-1))

    def block(name: str, y: Tensor) -> Tensor:
        y = y + attend(f"{name}.attn", norm(f"{name}.norm1", y))
        wide = linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", y))
        return y + linear(f"{name}.mlp.fc2", wide * (1 + torch.erf(wide / math.sqrt(2))) / 2)

    frequencies = [10_000 ** (-k / (dim // 2)) for k in range(dim // 2)]
    waves = [torch.cos(timesteps * f) for f in frequencies] + [torch.sin(timesteps * f) for f in frequencies]
    time = torch.stack(waves, dim=-1)
    if "time_embed.0.weight" in p:
        wide = linear("time_embed.0", time)
        time = linear("time_embed.2", wide / (1 + (-wide).exp()))

    kernel, tokens = p["patch_embed.proj.weight"], [time]
    if "label_emb.weight" in p and context is not None:
        tokens = [torch.stack([p["label_emb.weight"][int(label)] for label in context]), time]
    elif context is not None:
        tokens = [time, *linear("context_embed", context).unbind(1)]
    extras = len(tokens)
    for i in range(side):
        for j in range(side):
            window = x[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
            tokens.append(torch.einsum("bcij,dcij->bd", window, kernel) + p["patch_embed.proj.bias"])
    y = torch.stack(tokens, dim=1) + p["pos_embed"]

    skips = []
    for i in range(half):
        y = block(f"in_blocks.{i}", y)
        skips.append(y)
    y = block("mid_block", y)
    for i in range(half):
        y = block(f"out_blocks.{i}", linear(f"out_blocks.{i}.skip_linear", torch.cat([y, skips[half - 1 - i]], dim=-1)))
    y = linear("decoder_pred", norm("norm", y))[:, extras:]

    out = torch.zeros_like(x)
    for n in range(side**2):
        i, j = divmod(n, side)
        window = y[:, n].reshape(-1, patch, patch, channels).permute(0, 3, 1, 2)
        out[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch] = window
    if "final_layer.weight" not in p:
        return out
    final = p["final_layer.bias"][:, None, None].expand_as(out).clone()
    for i in range(3):
        for j in range(3):
            shifted = torch.nn.functional.pad(out, (1, 1, 1, 1))[:, :, i : i + x.shape[2], j : j + x.shape[3]]
            final = final + torch.einsum("bchw,oc->bohw", shifted, p["final_layer.weight"][:, :, i, j])
    return final


@pytest.fixture
def reference() -> SimpleNamespace:
    """`state(...)` makes an official state dict, `run(state, x, timesteps, context, heads=...)` is the reference network."""
    return SimpleNamespace(state=official_state, run=plain_uvit)


TINY = UViTConfig(image_size=4, patch_size=2, channels=1, dim=16, depth=3, heads=2)
TINY_AUTOENCODER = AutoencoderConfig(image_size=16, channels=3, latent_channels=2, widths=(8, 16), finish=4)


@pytest.fixture
def tiny() -> Callable[..., Backbone]:
    """Backbones of a 4x4 network: the same seed gives the same one."""

    def make(*, labels: tuple[str, ...] = (), latent: bool = False, prediction: str = "v", seed: int = 0) -> Backbone:
        torch.manual_seed(seed)
        settings = TINY.settings() | {"num_classes": len(labels) + 1 if labels else 0, "channels": 2 if latent else 1}
        network = UViT(UViTConfig(**settings))
        autoencoder = Autoencoder(TINY_AUTOENCODER) if latent else None
        return Backbone(network, Cosine(), prediction=prediction, labels=labels, autoencoder=autoencoder)

    return make


@pytest.fixture
def stripes() -> Tensor:
    """(8, 1, 4, 4) in [-1, 1]: the eight images of one bright row or column."""
    images = torch.full((8, 1, 4, 4), -1.0)
    for k in range(4):
        images[k, 0, k], images[4 + k, 0, :, k] = 1.0, 1.0
    return images
