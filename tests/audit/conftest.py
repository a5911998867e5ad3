"""Small pictures with known classes and known owners."""

from __future__ import annotations

import numpy as np
import pytest

from intarsia.data import Source

STROKES = {"cross": 0, "ring": 1, "stairs": 2}


def symbol(kind: str, draw: np.random.Generator) -> np.ndarray:
    """uint8 (8, 8, 1): a cross, a ring or stairs, moved and with an uneven pen."""
    row, column = np.mgrid[:8, :8] - 3.5 - draw.uniform(-0.7, 0.7, (2, 1, 1))
    far = {
        "cross": np.minimum(abs(row - column), abs(row + column)) / 2**0.5,
        "ring": abs(np.hypot(row, column) - draw.uniform(2.3, 2.9)),
        "stairs": np.minimum(abs(row - 2 * np.sign(column)), abs(column) + (abs(row) > 2) * 9),
    }[kind]
    ink = np.clip(1.2 - far / draw.uniform(0.8, 1.2), 0, 1)
    return np.rint(ink * 255).astype(np.uint8)[..., None]


def symbols(name: str, count: int, seed: int) -> Source:
    """`count` pictures of each symbol, labelled."""
    draw = np.random.default_rng(seed)
    labels = [kind for kind in STROKES for _ in range(count)]
    return Source.build(
        name,
        owner=name,
        licence="MIT",
        images=np.stack([symbol(kind, draw) for kind in labels]),
        file_names=[f"{k:04d}.png" for k in range(len(labels))],
        labels=labels,
    )


@pytest.fixture(scope="session")
def train_symbols() -> Source:
    return symbols("train", 60, seed=0)


@pytest.fixture(scope="session")
def held_out_symbols() -> Source:
    return symbols("held-out", 60, seed=1)
