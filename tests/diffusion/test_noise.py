from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from intarsia.diffusion import ImageNoise, keyed_generator, keyed_normal
from intarsia.errors import SettingsError

SHAPE = (3, 4, 4)


def test_same_key_same_numbers() -> None:
    assert torch.equal(keyed_normal(SHAPE, 7, "a", b"b"), keyed_normal(SHAPE, 7, "a", b"b"))


def test_keys_are_unambiguous() -> None:
    keys = [
        (1,),
        ("1",),
        (b"1",),
        (-1,),
        (1, 1),
        (11,),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("a", "b", "c"),
        ("", "abc"),
    ]
    firsts = {keyed_generator(*key).random() for key in keys}
    assert len(firsts) == len(keys)


def test_numpy_integers_are_integers() -> None:
    assert keyed_generator(np.int64(5)).random() == keyed_generator(5).random()


def test_known_answer() -> None:
    # Pins the encoding: if it changes, every stored seed means another picture, which needs an upgrade note.
    raw = keyed_generator(7, "image", b"\x00").bit_generator.random_raw(2)
    assert raw.tolist() == [10541137489863157522, 9338515899415555454]


@pytest.mark.parametrize("key", [(), (1.5,), (None,), (True,), (1, ["a"])])
def test_other_keys_are_refused(key: tuple[Any, ...]) -> None:
    with pytest.raises(SettingsError, match="random"):
        keyed_generator(*key)


def test_numbers_are_standard_normal_and_streams_independent() -> None:
    first, second = (keyed_normal((50_000,), "stream", k, dtype=torch.float64) for k in (0, 1))
    assert first.mean().abs() < 0.02
    assert (first.std() - 1).abs() < 0.02
    assert (first * second).mean().abs() < 0.02


def test_dtypes_round_the_same_noise() -> None:
    exact = keyed_normal(SHAPE, 1, dtype=torch.float64)
    assert torch.equal(keyed_normal(SHAPE, 1), exact.float())


def test_an_image_has_its_noise_in_any_batch() -> None:
    alone, among = ImageNoise(3, [7]), ImageNoise(3, [0, 7, 2])
    assert torch.equal(alone.initial(SHAPE)[0], among.initial(SHAPE)[1])
    assert torch.equal(alone.step(5, SHAPE)[0], among.step(5, SHAPE)[1])


def test_seed_index_step_and_purpose_each_matter() -> None:
    draws = [
        ImageNoise(3, [7]).initial(SHAPE),
        ImageNoise(3, [8]).initial(SHAPE),
        ImageNoise(4, [7]).initial(SHAPE),
        ImageNoise(3, [7]).step(0, SHAPE),
        ImageNoise(3, [7]).step(1, SHAPE),
    ]
    assert len({draw[0, 0, 0, 0].item() for draw in draws}) == len(draws)


def test_batch_shape() -> None:
    assert ImageNoise(0, range(2)).initial(SHAPE).shape == (2, *SHAPE)
    assert ImageNoise(0, []).step(0, SHAPE).shape == (0, *SHAPE)


def test_negative_index_is_refused() -> None:
    with pytest.raises(SettingsError, match="index -2 is negative"):
        ImageNoise(0, [1, -2])
