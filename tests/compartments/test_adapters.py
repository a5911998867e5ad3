"""Adapters: each optimised form equals the plain one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.backbone import UViT
from intarsia.backbone.uvit import Block
from intarsia.compartments.adapters import (
    ADAPTERS,
    DeepPrompts,
    FullCopy,
    Kind,
    Lora,
    Parallel,
    adapter_from,
    adapter_settings,
)
from intarsia.compartments.pieces import Adapted, Pieces
from intarsia.diffusion import keyed_normal
from intarsia.errors import SettingsError, UnknownName

from .helpers import AMONG, KINDS, TEXT, random_params, tiny_backbone, toy_caption


def batch(rows: int = 5) -> tuple[Tensor, Tensor]:
    return keyed_normal((rows, 1, 4, 4), "x"), torch.linspace(20, 900, rows)


def plain_prompted(
    network: UViT, x: Tensor, timesteps: Tensor, prompts: dict[str, Tensor], context: Tensor | None = None
) -> Tensor:
    """The paper's formulation, literally: prompt tokens (B, P, D) join each layer's input and leave with its output."""

    def through(block: nn.Module, tokens: Tensor, skip: Tensor | None) -> Tensor:
        assert isinstance(block, Block)
        if skip is not None:
            tokens = block.skip_linear(torch.cat([tokens, skip], dim=-1))
        count, dim = tokens.shape[1], network.config.dim
        x = torch.cat([tokens, prompts[block.name]], dim=1)
        q, k, v = (
            p.unflatten(-1, (network.config.heads, -1)).transpose(1, 2)
            for p in block.attn.qkv(block.norm1(x)).split(dim, -1)
        )
        x = x + block.attn.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
        return x[:, :count]

    tokens, skips = network.embed(x, timesteps, context), []
    for block in network.in_blocks:
        tokens = through(block, tokens, None)
        skips.append(tokens)
    tokens = through(network.mid_block, tokens, None)
    for block in network.out_blocks:
        tokens = through(block, tokens, skips.pop())
    patches = network.decoder_pred(network.norm(tokens))[:, network.config.extras :]
    return network.final_layer(network._unpatchify(patches))


def test_prompts_need_no_queries_and_no_feedforward() -> None:
    network, (x, t) = tiny_backbone().network, batch()
    kind = DeepPrompts(tokens=3)
    params = random_params(kind, network)
    plain = {block: params[f"{block}.prompts"].expand(len(x), -1, -1) for block in network.config.blocks}
    ours = network(x, t, adaptation=Adapted([(kind.pieces(network, params), len(x))]))
    torch.testing.assert_close(ours, plain_prompted(network, x, t, plain), rtol=1e-5, atol=1e-5)
    assert (ours - network(x, t)).abs().max() > 0.01


def test_prompts_per_class_follow_each_images_class() -> None:
    network, (x, t) = tiny_backbone().network, batch()
    kind, rows = DeepPrompts(tokens=3, per_class=True), torch.tensor([0, 1, 2, 1, 0])
    params = random_params(kind, network)
    plain = {block: params[f"{block}.prompts"][rows] for block in network.config.blocks}
    ours = network(x, t, adaptation=Adapted([(kind.pieces(network, params).of_rows(rows), len(x))]))
    torch.testing.assert_close(ours, plain_prompted(network, x, t, plain), rtol=1e-5, atol=1e-5)
    with pytest.raises(SettingsError, match="need the class of each image"):
        kind.pieces(network, params).of_rows(None)


def test_a_caption_among_the_tokens_joins_every_layer_and_leads_the_first() -> None:
    """As the plain formulation: its mapped states are tokens beside the prompts, those that it lacks are the bias."""
    backbone = tiny_backbone(labels=("a",))
    network, (x, t) = backbone.network, batch(3)
    params = random_params(AMONG, network)
    for block in network.config.blocks:  # the feed-forward's branch has a test of its own
        params |= {f"{block}.up": torch.zeros(16, 4), f"{block}.bias": torch.zeros(16)}
    captions = [toy_caption("oak", 2), None, toy_caption("a longer one", 6)]
    null = torch.ones(3, dtype=torch.int64)
    pieces = AMONG.captioned(network, params, AMONG.pieces(network, params), captions)
    ours = network(x, t, null, adaptation=Adapted([(pieces, 3)]))

    for row, caption in enumerate(captions):
        states = torch.zeros(4, 6)
        if caption is not None:
            states[: len(caption.states)] = caption.states[:4]
        told = states @ params["text.map"].T + params["text.bias"]
        plain = {b: torch.cat([params[f"{b}.prompts"], told[None]], dim=1) for b in network.config.blocks}
        lead = torch.zeros(16) if caption is None else caption.lead
        named = tiny_backbone(labels=("a",)).network
        with torch.no_grad():
            named.label_emb.weight[1] += lead
        mine = slice(row, row + 1)
        torch.testing.assert_close(
            ours[mine], plain_prompted(named, x[mine], t[mine], plain, null[mine]), rtol=1e-4, atol=1e-4
        )


def test_a_gated_caption_is_attended_to_by_itself() -> None:
    """Each head adds what it finds among prompts and caption, as far as its gate is open."""
    network = tiny_backbone(labels=("a",)).network
    params = random_params(TEXT, network)
    captions = [toy_caption("oak", 2), None, toy_caption("a longer one", 6)]
    pieces = TEXT.captioned(network, params, TEXT.pieces(network, params), captions)
    q, k, v = (keyed_normal((3, 2, 5, 8), name) for name in "qkv")
    found = Adapted([(pieces, 3)]).attend("mid_block", q, k, v)
    block = network.mid_block
    for row, caption in enumerate(captions):
        states = torch.zeros(4, 6)
        if caption is not None:
            states[: len(caption.states)] = caption.states[:4]
        told = torch.cat([params["mid_block.prompts"][0], states @ params["text.map"].T + params["text.bias"]])
        _, keys, values = block.attn.qkv(block.norm1(told)).unflatten(-1, (3, 2, 8)).permute(1, 2, 0, 3)
        for head, gate in enumerate(params["mid_block.gate"]):
            own = (q[row, head] @ k[row, head].T / 8**0.5).softmax(-1) @ v[row, head]
            added = (q[row, head] @ keys[head].T / 8**0.5).softmax(-1) @ values[head]
            torch.testing.assert_close(found[row, head], own + gate * added, rtol=1e-4, atol=1e-5)


def test_a_fresh_gated_caption_is_its_label_and_nothing_else() -> None:
    network, (x, t) = tiny_backbone(labels=("a",)).network, batch(2)
    null = torch.ones(2, dtype=torch.int64)
    for kind, unchanged in ((TEXT, True), (AMONG, False)):
        params = kind.initial(network, classes=0, seed=3)
        silent = replace(toy_caption("oak", 2), lead=torch.zeros(16))
        pieces = kind.captioned(network, params, kind.pieces(network, params), [silent, None])
        changed = network(x, t, null, adaptation=Adapted([(pieces, 2)]))
        assert torch.equal(changed, network(x, t, null)) == unchanged
        assert (("mid_block.gate" in params) and not params["mid_block.gate"].any()) == unchanged


def test_lora_equals_its_merged_weights() -> None:
    network, (x, t) = tiny_backbone().network, batch()
    kind = Lora(rank=2, scale=0.7, targets=("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "skip_linear"))
    params = random_params(kind, network)
    merged = kind.merged(network, params)
    assert len(merged) == 3 * 4 + 1
    ours = network(x, t, adaptation=Adapted([(kind.pieces(network, params), len(x))]))
    torch.testing.assert_close(ours, torch.func.functional_call(network, merged, (x, t)), rtol=1e-5, atol=1e-5)


def test_a_parallel_adapter_adds_to_each_feedforward() -> None:
    network = tiny_backbone().network
    kind = Parallel(width=4)
    params = random_params(kind, network)
    x, y = keyed_normal((2, 5, 16), "x"), keyed_normal((2, 5, 16), "y")
    added = Adapted([(kind.pieces(network, params), 2)]).feedforward("mid_block", x, y)
    expected = y + (x @ params["mid_block.down"].T).relu() @ params["mid_block.up"].T + params["mid_block.bias"]
    torch.testing.assert_close(added, expected)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not isinstance(kind, FullCopy)], ids=lambda kind: kind.name)
def test_a_fresh_adapter_of_zero_effect_changes_nothing(kind: Kind) -> None:
    network, (x, t) = tiny_backbone().network, batch()
    pieces = kind.pieces(network, kind.initial(network, classes=2, seed=3)).of_rows(
        torch.zeros(len(x), dtype=torch.int64)
    )
    changed = network(x, t, adaptation=Adapted([(pieces, len(x))]))
    assert torch.equal(changed, network(x, t)) == isinstance(kind, Lora | Parallel)


def test_rows_of_one_batch_may_belong_to_different_compartments() -> None:
    network, (x, t) = tiny_backbone().network, batch(9)
    kinds: list[Kind] = [Lora(rank=2), DeepPrompts(tokens=3), Parallel(width=4), Lora(rank=3, scale=0.5)]
    members = [
        (kind.pieces(network, random_params(kind, network, seed=k)), rows)
        for k, (kind, rows) in enumerate(zip(kinds, (2, 3, 1, 2), strict=True))
    ]
    members.append((Pieces(), 1))
    together = network(x, t, adaptation=Adapted(members))
    start = 0
    for pieces, rows in members:
        mine = slice(start, start + rows)
        alone = network(x[mine], t[mine], adaptation=Adapted([(pieces, rows)]))
        torch.testing.assert_close(together[mine], alone, rtol=1e-5, atol=1e-5)
        start += rows


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_settings_round_trip(kind: Kind) -> None:
    assert adapter_from(adapter_settings(kind)) == kind
    assert kind.name in ADAPTERS


def test_the_start_depends_on_the_seed_alone() -> None:
    network, kind = tiny_backbone().network, Lora(rank=2)
    torch.manual_seed(1)
    first = kind.initial(network, classes=0, seed=5)
    torch.manual_seed(2)
    assert all(torch.equal(p, first[name]) for name, p in kind.initial(network, classes=0, seed=5).items())
    assert not torch.equal(
        first["mid_block.attn.qkv.lora_A"], kind.initial(network, classes=0, seed=6)["mid_block.attn.qkv.lora_A"]
    )


def test_bad_settings_are_named() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'attn\.qkv'"):
        Lora(targets=("attn.qk",))
    with pytest.raises(SettingsError, match="gated is 1, expected true or false"):
        adapter_from({**adapter_settings(TEXT), "gated": 1})
    with pytest.raises(SettingsError, match="rank is 0"):
        Lora(rank=0)
    with pytest.raises(UnknownName, match="adapter kind 'lorra'"):
        adapter_from({"kind": "lorra"})
    with pytest.raises(SettingsError, match="other settings than"):
        adapter_from({"kind": "lora", "ranks": 3})
