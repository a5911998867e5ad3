"""Random numbers named by a key instead of by their place in a stream.

Every draw in intarsia is a function of what it is for (seed, image index, step, ...), so an image does not depend on
its neighbours in the batch, and a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray
from torch import Tensor

from intarsia.errors import SettingsError

KeyPart = int | str | bytes


def keyed_generator(*key: KeyPart) -> np.random.Generator:
    """A generator that depends on `key` only; different keys give independent streams.

    1, "1" and b"1" are three different parts, and ("ab", "c") is not ("a", "bc").

    Raises:
        SettingsError: no key, or a part that is neither int, str nor bytes.
    """
    if not key:
        raise SettingsError("random numbers were asked for without a key: name them, such as (seed, sample id, step)")
    digest = hashlib.blake2b(b"".join(map(_encode, key)), digest_size=16, person=b"intarsia").digest()
    # BitGenerator takes an ISeedSequence, says numpy; its stubs for Philox leave that out.
    return np.random.Generator(np.random.Philox(_Digest(digest)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Digest(ISeedSequence):
    """Philox's key as it is: the same as Philox(key=...), which asks the system for randomness that it then drops."""

    digest: bytes

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        return np.frombuffer(self.digest, dtype)


def keyed_normal(shape: Sequence[int], *key: KeyPart, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers that depend on `key` only: drawn in float64, so every dtype rounds the same noise."""
    return torch.from_numpy(keyed_generator(*key).standard_normal(tuple(shape))).to(dtype)


class StepNoise(Protocol):
    """Where a stochastic sampler gets its noise."""

    def step(self, k: int, shape: Sequence[int], /) -> Tensor:
        """The noise of step k (0, 1, ...) for one batch: (B, *shape), `shape` being that of one image."""
        ...


@dataclass(frozen=True)
class ImageNoise:
    """The noise of a batch of images, each fixed by (seed, its own index): image 7 is the same in any batch.

    Raises:
        SettingsError: a negative index.
    """

    seed: int
    indices: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", tuple(self.indices))
        if negative := [index for index in self.indices if index < 0]:
            raise SettingsError(f"image index {negative[0]} is negative: images are counted from 0")

    def initial(self, shape: Sequence[int]) -> Tensor:
        """Pure noise to start from: (B, *shape), `shape` being that of one image."""
        return self._draw(shape, "initial")

    def step(self, k: int, shape: Sequence[int]) -> Tensor:
        """The noise that step k adds: (B, *shape)."""
        return self._draw(shape, "step", k)

    def _draw(self, shape: Sequence[int], *purpose: KeyPart) -> Tensor:
        if not self.indices:
            return torch.empty((0, *shape))
        return torch.stack([keyed_normal(shape, "image", self.seed, index, *purpose) for index in self.indices])


def _encode(part: KeyPart) -> bytes:
    """Kind, length, content: no two keys have the same encoding."""
    if isinstance(part, np.integer):
        part = int(part)
    if type(part) not in (int, str, bytes):
        raise SettingsError(f"random key part {part!r} is a {type(part).__name__}: give an int, a str or bytes")
    return _encoded(part)


# The same seeds, steps and purposes come again for every image of a batch. Typed, as 1 and True are equal.
@lru_cache(maxsize=1 << 16, typed=True)
def _encoded(part: KeyPart) -> bytes:
    content = part if isinstance(part, bytes) else str(part).encode()
    return type(part).__name__[:1].encode() + len(content).to_bytes(8, "little") + content
