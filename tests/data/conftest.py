"""Small pictures and sources made on the spot."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from intarsia.data import Source, encode_png, read_source

Picture = Callable[..., np.ndarray]
Encode = Callable[..., bytes]
MakeSource = Callable[..., Source]
Read = Callable[..., Source]


@pytest.fixture
def picture() -> Picture:
    """`picture(k)`: the k-th random picture, uint8 (size, size, channels)."""

    def make(k: int, size: int = 8, channels: int = 3) -> np.ndarray:
        return np.random.default_rng(k).integers(0, 256, (size, size, channels), dtype=np.uint8)

    return make


@pytest.fixture
def encode() -> Encode:
    """`encode(image, format, **options)`: bytes of a Pillow image."""

    def run(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        return buffer.getvalue()

    return run


@pytest.fixture
def make_source(picture: Picture) -> MakeSource:
    """`make_source("name", [0, 1, 2])`: a source of random pictures."""

    def make(name: str, numbers: list[int], labels: list[str] | None = None) -> Source:
        return Source.build(
            name,
            owner="Ada",
            licence="MIT",
            images=np.stack([picture(k) for k in numbers]) if numbers else np.zeros((0, 8, 8, 3), np.uint8),
            file_names=[f"{k:03d}.png" for k in numbers],
            labels=labels,
        )

    return make


@pytest.fixture
def folder(tmp_path: Path, picture: Picture) -> Path:
    """A folder of three pictures and nothing else: a.png, b.png, c.png."""
    home = tmp_path / "images"
    home.mkdir()
    for k, name in enumerate("abc"):
        (home / f"{name}.png").write_bytes(encode_png(picture(k)))
    return home


@pytest.fixture
def read() -> Read:
    """`read_source` with the settings that the tests share."""

    def run(path: object, **settings: object) -> Source:
        defaults = {"name": "ada", "owner": "Ada", "licence": "CC-BY-4.0", "size": 8}
        return read_source(path, **{**defaults, **settings})

    return run
