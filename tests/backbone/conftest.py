"""A second U-ViT as the reference for ours, written from the paper with loops and no modules; small networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    """Random tensors under the official checkpoints' names; `half` blocks on each side, `text` = (tokens, width)."""
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


@dataclass(frozen=True)
class PlainUViT:
    """Bao et al. 2022, section 3 and appendix: the network of a state dict, spelt out; no code in common with ours."""

    p: Mapping[str, Tensor]
    heads: int

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor | None) -> Tensor:
        extras, patches = self.extras(timesteps, context), self.patches(x)
        y = torch.stack(extras + patches, dim=1) + self.p["pos_embed"]
        half = sum(name.endswith("skip_linear.weight") for name in self.p)
        skips = []
        for i in range(half):
            y = self.block(f"in_blocks.{i}", y)
            skips.append(y)
        y = self.block("mid_block", y)
        for i in range(half):
            both = torch.cat([y, skips[half - 1 - i]], dim=-1)
            y = self.block(f"out_blocks.{i}", self.linear(f"out_blocks.{i}.skip_linear", both))
        return self.picture(self.linear("decoder_pred", self.norm("norm", y))[:, len(extras) :], x)

    def extras(self, timesteps: Tensor, context: Tensor | None) -> list[Tensor]:
        half = self.p["pos_embed"].shape[-1] // 2
        angles = [timesteps * 10_000 ** (-k / half) for k in range(half)]
        time = torch.stack([torch.cos(a) for a in angles] + [torch.sin(a) for a in angles], dim=-1)
        if "time_embed.0.weight" in self.p:
            wide = self.linear("time_embed.0", time)
            time = self.linear("time_embed.2", wide / (1 + (-wide).exp()))
        if context is None:
            return [time]
        if "label_emb.weight" in self.p:
            return [torch.stack([self.p["label_emb.weight"][int(label)] for label in context]), time]
        return [time, *self.linear("context_embed", context).unbind(1)]

    def patches(self, x: Tensor) -> list[Tensor]:
        kernel, bias = self.p["patch_embed.proj.weight"], self.p["patch_embed.proj.bias"]
        return [torch.einsum("bcij,dcij->bd", window, kernel) + bias for window in self.windows(x)]

    def windows(self, x: Tensor) -> list[Tensor]:
        """Views of the patches, row by row."""
        size, side = self.p["patch_embed.proj.weight"].shape[-1], x.shape[-1]
        starts = [(i, j) for i in range(0, side, size) for j in range(0, side, size)]
        return [x[:, :, i : i + size, j : j + size] for i, j in starts]

    def linear(self, name: str, y: Tensor) -> Tensor:
        bias = self.p.get(f"{name}.bias", torch.zeros(()))
        return torch.einsum("...i,oi->...o", y, self.p[f"{name}.weight"]) + bias

    def norm(self, name: str, y: Tensor) -> Tensor:
        centred = y - y.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def block(self, name: str, y: Tensor) -> Tensor:
        y = y + self.attention(f"{name}.attn", self.norm(f"{name}.norm1", y))
        wide = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", y))
        return y + self.linear(f"{name}.mlp.fc2", wide * (1 + torch.erf(wide / math.sqrt(2))) / 2)

    def attention(self, name: str, y: Tensor) -> Tensor:
        dim = y.shape[-1] // self.heads
        parts = []
        for q, k, v in zip(*(part.split(dim, -1) for part in self.linear(f"{name}.qkv", y).chunk(3, -1)), strict=True):
            scores = torch.einsum("bqd,bkd->bqk", q, k) / math.sqrt(dim)
            share = scores.exp() / scores.exp().sum(-1, keepdim=True)
            parts.append(torch.einsum("bqk,bkd->bqd", share, v))
        return self.linear(f"{name}.proj", torch.cat(parts, dim=-1))

    def picture(self, y: Tensor, x: Tensor) -> Tensor:
        """Tokens back to their places, values ordered (row, column, channel), then the final 3x3 convolution."""
        out = torch.zeros_like(x)
        for n, window in enumerate(self.windows(out)):
            size, channels = window.shape[-1], window.shape[1]
            window.copy_(y[:, n].reshape(-1, size, size, channels).permute(0, 3, 1, 2))
        if "final_layer.weight" not in self.p:
            return out
        framed, (height, width) = torch.nn.functional.pad(out, (1, 1, 1, 1)), x.shape[2:]
        final = self.p["final_layer.bias"][:, None, None]
        for i, j in itertools.product(range(3), repeat=2):
            shifted, kernel = framed[:, :, i : i + height, j : j + width], self.p["final_layer.weight"][:, :, i, j]
            final = final + torch.einsum("bchw,oc->bohw", shifted, kernel)
        return final


def plain_uvit(
    p: Mapping[str, Tensor], x: Tensor, timesteps: Tensor, context: Tensor | None = None, *, heads: int
) -> Tensor:
    return PlainUViT(p, heads)(x, timesteps, context)


@pytest.fixture
def reference() -> SimpleNamespace:
    """`state(...)` makes an official state dict, `run(state, x, timesteps, context, heads=...)` is the network."""
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
