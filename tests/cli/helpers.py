"""A tiny backbone package and folders of tiny images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from intarsia.backbone import Backbone, UViT, UViTConfig
from intarsia.data import Source, encode_png
from intarsia.diffusion import Cosine, keyed_generator, keyed_normal
from intarsia.vault import write_package

SIDE = 4
QUICK = ("--steps", "4", "--rows", "4", "--precision", "float32", "--threads", "1", "--rank", "2")


def tiny_config() -> UViTConfig:
    return UViTConfig(image_size=SIDE, patch_size=2, channels=1, dim=8, depth=3, heads=2)


def tiny_backbone() -> Backbone:
    network = UViT(tiny_config())
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(0.3 * keyed_normal(p.shape, "tiny", name) + float("norm" in name and p.ndim == 1))
    return Backbone(network, Cosine())


def picture(name: str, number: int, side: int = SIDE) -> np.ndarray:
    """uint8 (side, side, 1), fixed by name and number."""
    return keyed_generator("picture", name, number).integers(0, 256, (side, side, 1), dtype=np.uint8)


def toy_source(name: str, count: int) -> Source:
    return Source.build(
        name,
        owner="nobody",
        licence="CC0-1.0",
        images=np.stack([picture(name, k) for k in range(count)]),
        file_names=[f"{k:03d}.png" for k in range(count)],
    )


def write_images(folder: Path, count: int = 6, *, labels: Sequence[str] = ("a", "b"), side: int = SIDE) -> Path:
    """A folder with one sub-folder per label; the pictures are fixed by the folder's name."""
    for k in range(count):
        place = folder / labels[k % len(labels)]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{k}.png").write_bytes(encode_png(picture(folder.name, k, side)))
    return folder


def make_package(folder: Path) -> Path:
    folder.mkdir()
    write_package(folder, tiny_backbone(), toy_source("core", 24))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
