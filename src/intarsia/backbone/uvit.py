"""U-ViT (Bao et al. 2022, arXiv 2209.12152): a transformer in which time, label, text and image patches are all tokens.

Parameter names and token order follow the official checkpoints, so that their state dicts load as they are. Nothing
here knows of compartments: what a compartment changes arrives as an `Adaptation`, an argument of the forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.backbone.network import Network
from intarsia.errors import SettingsError

Layer = Callable[[Tensor], Tensor]
TARGETS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "skip_linear")
"""Layers of a block that LoRA may stand beside; the last one is there in the second half alone."""


@dataclass(frozen=True, kw_only=True)
class UViTConfig:
    """The shape of a U-ViT.

    `num_classes` counts the rows of the label table, the null label included (it is the last one); 0 means no label
    token. `context_tokens` and `context_dim` describe the text states of the text-to-image variant; 0 means none.
    """

    image_size: int
    patch_size: int
    channels: int
    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = False
    mlp_time_embed: bool = False
    num_classes: int = 0
    context_dim: int = 0
    context_tokens: int = 0
    final_conv: bool = True

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise SettingsError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.dim % self.heads:
            raise SettingsError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.depth % 2 == 0:
            raise SettingsError(
                f"depth {self.depth} is even: a U-ViT has as many blocks before as after its middle one"
            )
        if self.num_classes and self.context_tokens:
            raise SettingsError("a U-ViT takes labels or text states, not both")

    @property
    def extras(self) -> int:
        """Number of tokens before the image patches."""
        return 1 + bool(self.num_classes) + self.context_tokens

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        return self.extras + self.patches

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks in the order in which they run."""
        half = self.depth // 2
        return (*(f"in_blocks.{i}" for i in range(half)), "mid_block", *(f"out_blocks.{i}" for i in range(half)))

    def settings(self) -> dict[str, object]:
        return asdict(self)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention, written out: on a CPU its backward takes half the time of the fused kernel's at these lengths.

    Args:
        q: (B, H, L, d). k, v: (B, H, M, d).
    Returns:
        (B, H, L, d).
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


class Adaptation(Protocol):
    """What a compartment does inside the forward of a backbone.

    Names are those of the modules, `in_blocks.0.attn.qkv`. A U-ViT asks for all four, a UNet for `linear` alone.
    """

    def enter(self, tokens: Tensor) -> Tensor:
        """The tokens (B, L, D) that the first block is given, in place of these."""
        ...

    def linear(self, name: str, layer: Layer, x: Tensor) -> Tensor:
        """Apply `layer` to x (B, L, in), with whatever the compartment adds to it; (B, L, out)."""
        ...

    def attend(self, block: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of a block, q, k, v (B, H, L, d), with any keys and values the compartment adds; (B, H, L, d)."""
        ...

    def feedforward(self, block: str, x: Tensor, y: Tensor) -> Tensor:
        """Given the feed-forward's input x and output y, both (B, L, D), the output to use."""
        ...


class Plain:
    """The adaptation that changes nothing."""

    def enter(self, tokens: Tensor) -> Tensor:
        return tokens

    def linear(self, name: str, layer: Layer, x: Tensor) -> Tensor:
        return layer(x)

    def attend(self, block: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v)

    def feedforward(self, block: str, x: Tensor, y: Tensor) -> Tensor:
        return y


PLAIN = Plain()


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Cosines and sines at geometrically spaced frequencies, as in the official model; (B,) to (B, dim), float32."""
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps[:, None].float() * torch.exp(-math.log(max_period) * steps / half)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, dim % 2))


class Attention(nn.Module):
    """Self-attention of one block: tokens (B, L, D) to (B, L, D)."""

    def __init__(self, name: str, config: UViTConfig):
        super().__init__()
        self.block = name
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.qkv_bias)
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, adaptation: Adaptation) -> Tensor:
        qkv = adaptation.linear(f"{self.block}.attn.qkv", self.qkv, x)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, L, d) each
        y = adaptation.attend(self.block, q, k, v).transpose(1, 2).flatten(2)
        return adaptation.linear(f"{self.block}.attn.proj", self.proj, y)


class FeedForward(nn.Module):
    """Two linear layers and a GELU in one block: tokens (B, L, D) to (B, L, D)."""

    def __init__(self, name: str, config: UViTConfig):
        super().__init__()
        self.block = name
        self.fc1 = nn.Linear(config.dim, int(config.dim * config.mlp_ratio))
        self.fc2 = nn.Linear(int(config.dim * config.mlp_ratio), config.dim)

    def forward(self, x: Tensor, adaptation: Adaptation) -> Tensor:
        hidden = F.gelu(adaptation.linear(f"{self.block}.mlp.fc1", self.fc1, x))
        y = adaptation.linear(f"{self.block}.mlp.fc2", self.fc2, hidden)
        return adaptation.feedforward(self.block, x, y)


class Block(nn.Module):
    """One transformer layer, pre-norm: tokens (B, L, D), and in the second half a skip of that shape, to (B, L, D)."""

    def __init__(self, name: str, config: UViTConfig):
        super().__init__()
        self.name = name
        self.norm1 = nn.LayerNorm(config.dim)
        self.attn = Attention(name, config)
        self.norm2 = nn.LayerNorm(config.dim)
        self.mlp = FeedForward(name, config)
        if name.startswith("out_blocks"):
            self.skip_linear = nn.Linear(2 * config.dim, config.dim)

    def forward(self, x: Tensor, adaptation: Adaptation, skip: Tensor | None = None) -> Tensor:
        if skip is not None:
            x = adaptation.linear(f"{self.name}.skip_linear", self.skip_linear, torch.cat([x, skip], dim=-1))
        x = x + self.attn(self.norm1(x), adaptation)
        return x + self.mlp(self.norm2(x), adaptation)


class PatchEmbed(nn.Module):
    """Patches of an image as tokens, row by row: (B, C, S, S) to (B, patches, D)."""

    def __init__(self, config: UViTConfig):
        super().__init__()
        self.proj = nn.Conv2d(config.channels, config.dim, config.patch_size, stride=config.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)  # (B, patches, D)


class UViT(Network):
    """The network; see the module's docstring. Built for `config`, with the official initialisation."""

    targets: ClassVar[tuple[str, ...]] = TARGETS
    usual_targets: ClassVar[tuple[str, ...]] = TARGETS[:4]
    config: UViTConfig

    def __init__(self, config: UViTConfig):
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.time_embed: nn.Module = nn.Identity()
        if config.mlp_time_embed:
            wide = 4 * config.dim
            self.time_embed = nn.Sequential(nn.Linear(config.dim, wide), nn.SiLU(), nn.Linear(wide, config.dim))
        if config.num_classes:
            self.label_emb = nn.Embedding(config.num_classes, config.dim)
        if config.context_tokens:
            self.context_embed = nn.Linear(config.context_dim, config.dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.extras + config.patches, config.dim))
        half = config.depth // 2
        self.in_blocks = nn.ModuleList(Block(f"in_blocks.{i}", config) for i in range(half))
        self.mid_block = Block("mid_block", config)
        self.out_blocks = nn.ModuleList(Block(f"out_blocks.{i}", config) for i in range(half))
        self.norm = nn.LayerNorm(config.dim)
        self.decoder_pred = nn.Linear(config.dim, config.patch_size**2 * config.channels)
        self.final_layer: nn.Module = nn.Identity()
        if config.final_conv:
            self.final_layer = nn.Conv2d(config.channels, config.channels, 3, padding=1)
        self._initialise()

    def linear_layers(self, targets: Sequence[str]) -> dict[str, nn.Linear]:
        self.check_targets(targets)
        modules = dict(self.named_modules())
        wanted = [f"{block}.{target}" for block in self.config.blocks for target in targets]
        return {name: layer for name in wanted if isinstance(layer := modules.get(name), nn.Linear)}

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, *, adaptation: Adaptation = PLAIN
    ) -> Tensor:
        """Predict what the network was trained to predict.

        Args:
            x: (B, C, S, S) noised images or latents.
            timesteps: (B,) on the scale the network was trained on (0..999 for official checkpoints).
            context: labels (B,) int64 for a class-conditional network, text states (B, tokens, dim) for a text one.
            adaptation: what compartments change; nothing by default.
        Returns:
            (B, C, S, S).
        """
        tokens = adaptation.enter(self.embed(x, timesteps, context))
        tokens, skips = self.encode(tokens, adaptation)
        for block in self.out_blocks:
            tokens = block(tokens, adaptation, skips.pop())
        patches = self.decoder_pred(self.norm(tokens))[:, self.config.extras :]
        return self.final_layer(self._unpatchify(patches))

    def embed(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        """All tokens in the official order, label or time first: (B, extras + patches, D)."""
        if (context is None) == bool(self.config.num_classes or self.config.context_tokens):
            wanted = "labels" if self.config.num_classes else "text states"
            raise SettingsError("this U-ViT takes no context" if context is not None else f"this U-ViT needs {wanted}")
        patches = self.patch_embed(x)
        time = self.time_embed(timestep_embedding(timesteps, self.config.dim).to(patches.dtype))[:, None]
        tokens = [time, patches]
        if context is not None and self.config.num_classes:
            tokens = [self.label_emb(context)[:, None], time, patches]
        elif context is not None:
            tokens = [time, self.context_embed(context.to(patches.dtype)), patches]
        return torch.cat(tokens, dim=1) + self.pos_embed

    def encode(self, tokens: Tensor, adaptation: Adaptation = PLAIN) -> tuple[Tensor, list[Tensor]]:
        """The first half: tokens (B, L, D) after the middle block, and the skips for the second half."""
        skips = []
        for block in self.in_blocks:
            tokens = block(tokens, adaptation)
            skips.append(tokens)
        return self.mid_block(tokens, adaptation), skips

    def _unpatchify(self, patches: Tensor) -> Tensor:
        size, side = self.config.patch_size, self.config.image_size // self.config.patch_size
        grid = patches.unflatten(1, (side, side)).unflatten(-1, (size, size, -1))  # (B, h, w, p, p, C)
        return grid.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def as_uvit(network: Network, what: str, instead: str) -> UViT:
    """The network as a U-ViT, for what is made of its tokens and blocks.

    Raises:
        SettingsError: it is another network; `what` says what cannot be had of it, `instead` what to do.
    """
    if not isinstance(network, UViT):
        raise SettingsError(
            f"{what} is made for a U-ViT, and this backbone's network is a {type(network).__name__}; {instead}"
        )
    return network
