"""Worlds of the tables: what is held out is not of what is trained on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from intarsia.data import Source
from intarsia.data.collections.mnist import by_digit
from intarsia.errors import InputError
from intarsia.experiments.reproduce import worlds
from intarsia.experiments.reproduce.worlds import emoji_world, mnist_world

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


def test_emoji_without_a_caption_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.zeros((3, 32, 32, 3), dtype=np.uint8)
    images += np.arange(3, dtype=np.uint8)[:, None, None, None]
    nameless = Source.build(
        "twemoji",
        owner="Ada",
        licence="MIT",
        images=images,
        file_names=["0.png", "1.png", "2.png"],
        labels=["apple", None, None],
    )
    for name in ("twemoji", "openmoji"):
        (tmp_path / f"{name}_32.parquet").touch()
    monkeypatch.setattr(worlds, "load_emoji", lambda *_, **__: [nameless])
    with pytest.raises(InputError, match="2 emoji of twemoji have no caption"):
        emoji_world(tmp_path)
