"""The adapter that reads captions: the paper's for text-to-image, on a backbone that never saw text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.backbone.network import Network
from intarsia.backbone.text import MINILM, MINILM_DIGEST, MINILM_DIM, Prompt, TextEncoder
from intarsia.checks import check_whole
from intarsia.compartments.pieces import MOST, Params, Pieces, Shapes, of_uvit, prompt_keys_values
from intarsia.diffusion import keyed_normal
from intarsia.errors import SettingsError

_SMALL = 0.05  # of fresh tokens; a LayerNorm follows, so that it only sets how fast they turn


# Golatkar et al. 2023, supplementary: 64 deep prompts, a linear map of text states into token space, and a parallel
# adapter on every feed-forward layer (science.md section 4)
@dataclass(frozen=True, kw_only=True)
class TextPrompts:
    """Deep prompts, caption tokens beside them in every layer, and a small network beside every feed-forward.

    Of a caption `length` tokens are read, a shorter one is followed by states of 0, and the null caption is all 0. The
    `encoder`, its `digest` and the width `states` of its token states belong together: `text_prompts` reads them off.
    `gated`: prompts and caption tokens are attended to by themselves, and what they say is added as far as a gate of
    each head opens, which is shut at first. Otherwise they stand among the image's tokens, as in the paper.
    """

    name: ClassVar[str] = "text"
    default_lr: ClassVar[float] = 5e-3
    tokens: int = 64
    width: int = 64
    length: int = 32
    gated: bool = True
    encoder: str = MINILM
    digest: str = MINILM_DIGEST
    states: int = MINILM_DIM

    def __post_init__(self) -> None:
        for name in ("tokens", "width", "length", "states"):
            check_whole(name, getattr(self, name), most=MOST)
        if not isinstance(self.gated, bool):
            raise SettingsError(f"gated is {self.gated!r}, expected true or false")

    def shapes(self, network: Network, *, classes: int) -> Shapes:
        config = of_uvit(self, network).config
        dim = config.dim
        shapes: Shapes = {"text.map": (dim, self.states), "text.bias": (dim,)}
        each: Shapes = {"prompts": (1, self.tokens, dim), "down": (self.width, dim), "up": (dim, self.width)}
        each |= {"bias": (dim,), **({"gate": (config.heads,)} if self.gated else {})}
        return shapes | {f"{block}.{name}": shape for block in config.blocks for name, shape in each.items()}

    def initial(self, network: Network, *, classes: int, seed: int) -> dict[str, Tensor]:
        """The feed-forward's branch adds nothing at first; prompts and caption tokens only if they are not gated."""
        dim = of_uvit(self, network).config.dim
        scales = {"map": self.states**-0.5, "prompts": _SMALL, "down": dim**-0.5}
        params = {}
        for name, shape in self.shapes(network, classes=classes).items():
            scale = scales.get(name.rpartition(".")[2])
            params[name] = torch.zeros(shape) if scale is None else scale * keyed_normal(shape, "text", seed, name)
        return params

    def pieces(self, network: Network, params: Params) -> Pieces:
        """What does not depend on captions; no image is ever adapted by it alone, but by `captioned`."""
        uvit = of_uvit(self, network)
        blocks = uvit.config.blocks
        return Pieces(
            prefix={block: prompt_keys_values(uvit, block, params[f"{block}.prompts"]) for block in blocks},
            branch={b: (params[f"{b}.down"], params[f"{b}.up"], params[f"{b}.bias"]) for b in blocks},
        )

    def captioned(self, network: Network, params: Params, pieces: Pieces, captions: Sequence[Prompt | None]) -> Pieces:
        """`pieces` with the prefix sets and leads of S captions, in their order; None is the null caption."""
        like, uvit = params["text.map"], of_uvit(self, network)
        tokens = F.linear(self.padded(captions).to(like), like, params["text.bias"])  # (S, length, D)
        joined = {}
        for block, fixed in pieces.prefix.items():
            told = prompt_keys_values(uvit, block, tokens)
            keys, values = (
                torch.cat([a.expand(len(b), -1, -1, -1), b], dim=2) for a, b in zip(fixed, told, strict=True)
            )
            joined[block] = keys, self.opened(values, params.get(f"{block}.gate"))
        zero = like.new_zeros(uvit.config.dim)
        lead = torch.stack([zero if caption is None else caption.lead.to(like) for caption in captions])
        prefix, aside = ({}, joined) if self.gated else (joined, {})
        return replace(pieces, prefix=prefix, aside=aside, lead=lead)

    # Zhang et al. 2023 (LLaMA-Adapter, arXiv 2303.16199), section 3.2: zero-initialised attention. Fresh prompts among
    # the image's own tokens draw a third of its attention to noise, which costs a backbone half of what it knew.
    def opened(self, values: Tensor, gate: Tensor | None) -> Tensor:
        """The values (S, H, P, d) as far as the gate (H,) or (S, H) lets them through; all without one."""
        return values if gate is None else values * gate[..., None, None]

    def padded(self, captions: Sequence[Prompt | None]) -> Tensor:
        """Token states of S captions, cut and padded: (S, length, states)."""
        padded = torch.zeros(len(captions), self.length, self.states)
        for row, caption in enumerate(captions):
            if caption is not None:
                states = caption.states[: self.length]
                padded[row, : len(states)] = states
        return padded


def text_prompts(
    encoder: TextEncoder, *, tokens: int = 64, width: int = 64, length: int = 32, gated: bool = True
) -> TextPrompts:
    """The adapter for captions as this encoder reads them.

    Raises:
        SettingsError: more tokens of a caption than the encoder takes.
    """
    if length > encoder.limit:
        raise SettingsError(
            f"length is {length}, and '{encoder.name}' takes {encoder.limit} tokens; read as many, or fewer"
        )
    return TextPrompts(
        tokens=tokens,
        width=width,
        length=length,
        gated=gated,
        encoder=encoder.name,
        digest=encoder.digest,
        states=encoder.dim,
    )
