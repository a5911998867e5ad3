"""Tiny backbones and sources shared by the tests of this room."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from intarsia.backbone import Backbone, Prompt, UViT, UViTConfig
from intarsia.compartments import TextPrompts, TrainData, TrainSettings
from intarsia.compartments.adapters import DeepPrompts, FullCopy, Kind, Lora, Parallel
from intarsia.diffusion import Cosine, keyed_normal

TEXT = TextPrompts(tokens=3, width=4, length=4, encoder="toy", digest="toy", states=6)
AMONG = replace(TEXT, gated=False)
KINDS: list[Kind] = [
    Lora(rank=2),
    Lora(rank=2, targets=("attn.qkv", "skip_linear"), scale=0.5),
    DeepPrompts(tokens=3),
    DeepPrompts(tokens=2, per_class=True),
    Parallel(width=4),
    TEXT,
    AMONG,
    FullCopy(),
]


def tiny_backbone(*, labels: tuple[str, ...] = (), seed: int = 0) -> Backbone:
    """Three blocks on 4x4 pictures of one channel, all parameters random so that nothing is accidentally zero."""
    config = UViTConfig(
        image_size=4, patch_size=1, channels=1, dim=16, depth=3, heads=2, num_classes=len(labels) + 1 if labels else 0
    )
    network = UViT(config)
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(
                keyed_normal(p.shape, "test backbone", seed, name) * 0.3
                + (1.0 if "norm" in name and p.ndim == 1 else 0.0)
            )
    return Backbone(network, Cosine(), labels=labels)


def random_params(kind: Kind, network: UViT, *, classes: int = 2, seed: int = 1) -> dict[str, Tensor]:
    """Parameters away from their initial values, where LoRA's B and an adapter's up are zero."""
    shapes = kind.initial(network, classes=classes, seed=0)
    return {name: 0.3 * keyed_normal(p.shape, "params", seed, name) for name, p in shapes.items()}


def toy_caption(text: str, words: int) -> Prompt:
    """A caption whose states and lead for `tiny_backbone` are fixed by its text."""
    return Prompt(text, "toy", keyed_normal((words, 6), "states", text), keyed_normal((16,), "lead", text))


def toy_data(name: str, count: int = 12, *, labels: tuple[str, ...] = ("a", "b")) -> TrainData:
    """`count` pictures whose ids, pixels, labels and captions depend on (name, number) alone."""
    ids = [hashlib.sha256(f"{name} {k}".encode()).hexdigest() for k in range(count)]
    latents = torch.stack([keyed_normal((1, 4, 4), "toy", name, k).tanh() for k in range(count)])
    captions = [toy_caption(f"{name} {k}", 1 + k % 5) if k % 3 else None for k in range(count)]
    named = [labels[k % len(labels)] if labels else None for k in range(count)]
    return TrainData(name, latents, ids, named, captions=captions)


def quick(adapter: Kind, **changes: Any) -> TrainSettings:
    """Settings for a run of a second, in float32."""
    values: dict[str, Any] = {"steps": 6, "rows": 4, "precision": "float32", "threads": 1} | changes
    return TrainSettings(adapter=adapter, **values)
