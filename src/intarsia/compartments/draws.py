"""Which samples a training step sees, and with which noise: functions of (seed, sample id, step), never of position.

So a sample that leaves moves no other sample's noise, and a resumed run draws what the uninterrupted one would have
drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from intarsia.diffusion import keyed_generator

Words = npt.NDArray[np.uint64]


def splitmix64(x: Words) -> Words:
    """A bijective mixing of 64-bit words (Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sample_keys(ids: Sequence[str], seed: int) -> Words:
    """One 64-bit word per sample, a function of (seed, id): (N,)."""
    words = np.array([int(sample[:16], 16) for sample in ids], dtype=np.uint64)
    return splitmix64(words ^ splitmix64(np.array([seed], dtype=np.uint64)))


def draw_rows(keys: Words, step: int, count: int) -> npt.NDArray[np.intp]:
    """The samples of one step: the `count` with the smallest mix of (key, step), without repetition while they last.

    Where there are fewer than `count`, all have their turn before any has the next, so that numbers of draws differ by
    one at most. Returns places in `keys`, (count,).
    """
    rounds = -(-count // len(keys))
    turns = np.arange(rounds, dtype=np.uint64)[:, None] + np.uint64(step) * np.uint64(0x100000)
    ranks = splitmix64(keys[None] ^ splitmix64(turns))
    # Turn before hash: nobody has a second turn while somebody waits for the first.
    return np.argsort(ranks, axis=1, kind="stable").ravel()[:count]


@dataclass(frozen=True)
class Draws:
    """What the rows of one training step need, all (count, ...): time, noise, and a number for dropping labels."""

    t: Tensor
    eps: Tensor
    coin: Tensor


def draw_noise(ids: Sequence[str], seed: int, step: int, shape: Sequence[int]) -> Draws:
    """Times uniform in [0, 1), normal noise and a uniform coin for each row.

    A sample drawn twice in a step gets other numbers at each of its turns.
    """
    turns: dict[str, int] = {}
    t, coin, eps = [], [], []
    for sample in ids:
        turn = turns[sample] = turns.get(sample, -1) + 1
        generator = keyed_generator("train", seed, sample, step, turn)
        a, b = generator.random(2)
        t.append(a)
        coin.append(b)
        eps.append(generator.standard_normal(tuple(shape), dtype=np.float32))
    return Draws(torch.tensor(t, dtype=torch.float32), torch.from_numpy(np.stack(eps)), torch.tensor(coin))
