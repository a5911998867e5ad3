"""Worlds of the tables: what is held out is not of what is trained on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from intarsia.data.collections.mnist import by_digit
from intarsia.errors import InputError
from intarsia.experiments.reproduce import worlds
from intarsia.experiments.reproduce.worlds import mnist_world

HANDS, SIDE = 40, 28


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forty blots in the place of the wheel's digits; nothing reads them."""
    module = sys.modules["intarsia.data.collections.mnist"]
    y, x = np.mgrid[:SIDE, :SIDE]
    blots = [np.hypot(x - 8 - k % 7 * 2, y - 8 - k // 7 * 2) < 4 + k % 4 for k in range(HANDS)]
    table = np.array([[*(255 * blot.ravel()), k % 10] for k, blot in enumerate(blots)], dtype=np.uint8)
    module._digits.cache_clear()
    monkeypatch.setattr(module, "_table", lambda: table)
    monkeypatch.setattr(worlds, "_reader", lambda real: SimpleNamespace(name="none"))
    yield
    module._digits.cache_clear()


@pytest.mark.usefixtures("hands")
def test_all_pictures_of_one_hand_are_held_out_together() -> None:
    world = mnist_world(400)
    trained, held = ({by_digit(sample) for sample in some.manifest} for some in (world.images, world.reference))
    assert not trained & held
    assert len(trained | held) == HANDS
    assert len(world.images) + len(world.reference) == 400
    assert 20 < len(world.reference) < 160
    assert world.settings() != mnist_world(300).settings()


@pytest.mark.usefixtures("hands")
def test_too_few_to_hold_some_out() -> None:
    with pytest.raises(InputError, match="mnist holds 3 images, too few"):
        mnist_world(3)
