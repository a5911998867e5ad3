"""The paper's formulation of deep prompts, literally, for comparison.

Prompt tokens run through every layer and are dropped after it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.backbone import UViT
from intarsia.backbone.uvit import Block


def plain_forward(network: UViT, prompts: Mapping[str, Tensor], x: Tensor, timesteps: Tensor) -> Tensor:
    """Prompts `<block>.prompts` (1, P, D) join a layer's input and leave with its output; torch's fused attention."""

    def through(block: nn.Module, tokens: Tensor, skip: Tensor | None) -> Tensor:
        assert isinstance(block, Block)
        if skip is not None:
            tokens = block.skip_linear(torch.cat([tokens, skip], dim=-1))
        count, heads = tokens.shape[1], block.attn.heads
        x = torch.cat([tokens, prompts[f"{block.name}.prompts"].expand(len(tokens), -1, -1)], dim=1)
        q, k, v = (
            p.unflatten(-1, (heads, -1)).transpose(1, 2) for p in block.attn.qkv(block.norm1(x)).chunk(3, dim=-1)
        )
        x = x + block.attn.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
        return x[:, :count]

    tokens, skips = network.embed(x, timesteps), []
    for block in network.in_blocks:
        tokens = through(block, tokens, None)
        skips.append(tokens)
    tokens = through(network.mid_block, tokens, None)
    for block in network.out_blocks:
        tokens = through(block, tokens, skips.pop())
    patches = network.decoder_pred(network.norm(tokens))[:, network.config.extras :]
    return network.final_layer(network._unpatchify(patches))
