"""Glyphs, warped and inked: how letters and digits become pictures as the UCI digits were made.

A picture is a binary bitmap of four times the final side, its ink fitted to the full height, then ink counts over 4 x 4
blocks. A glyph is kept as a signed distance field, so that one threshold sets the width of the pen, whatever the weight
of the font or of the hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.checks import check_seed, check_whole
from intarsia.data.collections.digits import ink_to_grey
from intarsia.diffusion.noise import keyed_generator
from intarsia.errors import SettingsError

GRID = 48
"""Side of a glyph's distance field."""
_BLOCK = 4  # bitmap pixels per final pixel, as in the UCI digits
_LOOK = 32  # side of the coarse looks that find the ink
_WIDTHS = (0.28, 0.74)  # narrowest and widest ink, as a share of the picture; the digits are about 0.7 wide
_WAVES = 3
_CHUNK = 512
_LARGEST = 1024  # pixels a side
_MOST_PIXELS = 2**30  # of all pictures together
_PATIENCE = 10  # draws per different picture before giving up

Field = NDArray[np.floating[Any]]
Ink = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Glyphs:
    """Glyphs to draw with, in units of the glyph square [-1, 1].

    Args:
        name: of what they are, said in errors; draws are keyed by it.
        fields: float32 (G, GRID, GRID), distance to the edge of the ink, positive inside.
        strokes: float32 (G, 2), half the width of the main and of the thin strokes.
        sway: how far pictures are turned, slanted, stretched and rippled; 1 is as much as printed letters bear.
    """

    name: str
    fields: Field
    strokes: Field
    sway: float = 1.0

    @classmethod
    def of(cls, name: str, inks: Ink, *, sway: float = 1.0) -> Glyphs:
        """Of bitmaps (G, GRID, GRID), centred, all at one size."""
        fields = _smooth((_distance(inks) - _distance(~inks)) * (2 / GRID)).astype(np.float32)
        return cls(name, fields, np.array([_strokes(field) for field in fields], np.float32), sway)


@dataclass(frozen=True)
class Draws:
    """The random numbers of a chunk of pictures; row b depends on (seed, index of picture b) alone."""

    glyph: NDArray[np.int64]  # (B,) which of the glyphs
    matrix: Field  # (B, 2, 2) from picture to glyph coordinates, both (x, y) in [-1, 1]
    pen: Field  # (B,) half the stroke width, in pixels of an 8 x 8 picture
    place: Field  # (B,) how much of the room beside the ink lies to its left, in [0, 1]
    wave: Field  # (B, WAVES, 5) push along u, push along v, rate along x, rate along y, phase


@dataclass(frozen=True, eq=False)
class Picture:
    """One drawing: `image` is uint8 (size, size, 1), `index` its number among all draws of the seed."""

    index: int
    glyph: int
    image: NDArray[np.uint8]


def different_pictures(glyphs: Glyphs, count: int, *, size: int, seed: int) -> list[Picture]:
    """`count` pictures, no two alike. Number k depends on (name, seed, k) alone: a shorter set is a prefix of a longer.

    Raises:
        SettingsError: `count` or `size` is not positive or far too large, or there are not so many different pictures
            of this size.
    """
    check_whole(f"the size of the {glyphs.name}", size, most=_LARGEST)
    check_whole(f"the number of {glyphs.name}", count, most=_MOST_PIXELS // size**2)
    check_seed(seed)
    chosen: dict[bytes, Picture] = {}
    for picture in _pictures(glyphs, size, seed):
        if len(chosen) == count:
            break
        if picture.index >= _PATIENCE * count + _CHUNK:
            raise SettingsError(
                f"only {len(chosen)} different {glyphs.name} of {size} x {size} pixels turned up, {count} were asked "
                "for; ask for fewer, or for larger ones"
            )
        chosen.setdefault(picture.image.tobytes(), picture)
    return list(chosen.values())


def _pictures(glyphs: Glyphs, size: int, seed: int) -> Iterator[Picture]:
    """Pictures without end."""
    # Chunks bound the memory; larger pictures come in smaller chunks.
    chunk = max(1, min(_CHUNK, _CHUNK * 64 // size**2))
    first = 0
    while True:
        draws = _draw(glyphs, range(first, first + chunk), seed)
        bitmap = _bitmaps(glyphs.fields[draws.glyph], glyphs.strokes[draws.glyph], draws, size * _BLOCK)
        blocks = bitmap.reshape(chunk, size, _BLOCK, size, _BLOCK).sum((2, 4))
        for offset, image in enumerate(ink_to_grey(blocks)):
            yield Picture(first + offset, int(draws.glyph[offset]), image)
        first += chunk


def _draw(glyphs: Glyphs, indices: range, seed: int) -> Draws:
    numbers = np.stack([keyed_generator(glyphs.name, seed, index).random(8 + 5 * _WAVES) for index in indices])
    u = numbers.astype(np.float32)
    signed = 2 * u - 1
    count, sway = len(glyphs.fields), np.float32(glyphs.sway)
    glyph = np.minimum((numbers[:, 0] * count).astype(np.int64), count - 1)
    angle, shear = sway * 0.22 * signed[:, 1], sway * 0.30 * signed[:, 2]
    stretch = np.exp(sway * 0.22 * signed[:, 3])
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    slant = np.stack([np.stack([stretch, shear], -1), np.stack([0 * shear, 1 / stretch], -1)], -2)
    wave = u[:, 8:].reshape(-1, _WAVES, 5)
    low, high = (
        np.array([-0.06 * sway, -0.06 * sway, -2.5, -2.5, 0], np.float32),
        np.array([0.06 * sway, 0.06 * sway, 2.5, 2.5, 6.2832], np.float32),
    )
    # Sum of three uniforms: most pens are alike, few are very thin or thick.
    pen = 0.80 + 0.30 * signed[:, 4:7].mean(-1)
    return Draws(glyph, turn @ slant, pen, 0.5 + 0.3 * signed[:, 7], low + (high - low) * wave)


def _bitmaps(fields: Field, pens: Field, draws: Draws, side: int) -> Ink:
    """Binary pictures (B, side, side): warp, set the pen, fit the ink to the full height.

    A first look finds the ink at the font's own weight, which gives the scale; a second one finds the ink of the pen.
    """
    window = np.tile(np.array([-1.25, -1.25, 1.25, 1.25], np.float32), (len(fields), 1))
    frame = _frame(_ink_box(_sample(fields, draws, window, _LOOK) > 0, window), draws)
    scale = np.sqrt((frame[:, 2] - frame[:, 0]) * (frame[:, 3] - frame[:, 1])) / (side // _BLOCK)
    # Half the stroke becomes the pen's; erosion stops before the thin strokes of a bold face break.
    cut = np.minimum(pens[:, 0] - draws.pen * (side // _BLOCK) / 8 * scale, 0.6 * pens[:, 1])[:, None, None]
    wider = frame + 0.15 * np.tile(frame[:, :2] - frame[:, 2:], (1, 2)) * np.array([1, 1, -1, -1], np.float32)
    frame = _frame(_ink_box(_sample(fields, draws, wider, _LOOK) > cut, wider), draws)
    return _sample(fields, draws, frame, side) > cut


def _ink_box(ink: Ink, window: Field) -> Field:
    """Bounding boxes (B, 4), left top right bottom, of the ink in its window; without ink, the window."""
    side = ink.shape[1]
    ink = np.where(ink.any((1, 2), keepdims=True), ink, True)
    lines = np.stack([ink.max(1), ink.max(2)], 1)  # (B, 2, side): columns with ink, rows with ink
    near = lines.argmax(2).astype(np.float32)
    far = side - lines[:, :, ::-1].argmax(2).astype(np.float32)
    origin, cell = window[:, :2], (window[:, 2:] - window[:, :2]) / side
    return np.concatenate([origin + near * cell, origin + far * cell], 1)


def _frame(ink: Field, draws: Draws) -> Field:
    """What the picture shows: the full height of the ink, and its width as a share of the picture within _WIDTHS."""
    width, height = ink[:, 2] - ink[:, 0], ink[:, 3] - ink[:, 1]
    across = width / np.clip(width / height, *_WIDTHS)
    left = ink[:, 0] - (across - width) * draws.place
    return np.stack([left, ink[:, 1], left + across, ink[:, 3]], 1)


def _sample(fields: Field, draws: Draws, frame: Field, side: int) -> Field:
    """Distance fields seen through the warp, at side x side points of each frame; bilinear, edge values outside."""
    steps = ((np.arange(side, dtype=np.float32) + 0.5) / side)[None]
    x = (frame[:, :1] + (frame[:, 2:3] - frame[:, :1]) * steps)[:, None, :]
    y = (frame[:, 1:2] + (frame[:, 3:] - frame[:, 1:2]) * steps)[:, :, None]
    u, v = (draws.matrix[:, row, 0, None, None] * x + draws.matrix[:, row, 1, None, None] * y for row in (0, 1))
    for push_u, push_v, rate_x, rate_y, phase in np.moveaxis(draws.wave, 0, -1)[..., None, None]:
        ripple = np.sin(rate_x * x + rate_y * y + phase)
        u, v = u + push_u * ripple, v + push_v * ripple
    return _bilinear(fields, u, v)


def _bilinear(fields: Field, u: Field, v: Field) -> Field:
    column, row = (np.clip((place + 1) * (GRID / 2) - 0.5, 0, GRID - 1.001) for place in (u, v))
    left, top = column.astype(np.int32), row.astype(np.int32)
    fx, fy = column - left, row - top
    at = (np.arange(len(fields), dtype=np.int32)[:, None, None] * GRID + top) * GRID + left
    flat = fields.reshape(-1)
    upper = flat[at] * (1 - fx) + flat[at + 1] * fx
    lower = flat[at + GRID] * (1 - fx) + flat[at + GRID + 1] * fx
    return upper * (1 - fy) + lower * fy


def _distance(inside: Ink) -> NDArray[np.float64]:
    """Euclidean distance (G, n, n) of every cell inside to the nearest cell outside, 0 outside; exact, separable."""
    n = inside.shape[1]
    steps = np.arange(n)
    apart = (steps[:, None] - steps[None]) ** 2.0
    column = np.where(inside, np.inf, 0.0)
    for axis in (1, 2):
        moved = np.moveaxis(column, axis, 1)
        nearest = np.stack([(moved + apart[row, None, :, None]).min(1) for row in steps], 1)
        column = np.moveaxis(nearest, 1, axis)
    return np.sqrt(np.minimum(column, 2.0 * n * n))


def _smooth(fields: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take the stairs of the cell edges out of the field, by a 1-2-1 mean in both directions."""
    for axis in (1, 2):
        fields = (np.roll(fields, 1, axis) + 2 * fields + np.roll(fields, -1, axis)) / 4
    return fields


def _strokes(field: Field) -> tuple[float, float]:
    """Half the width of the main and of the thin strokes: quantiles of the field along its ridge."""
    around = np.stack([np.roll(field, shift, axis) for shift in (-1, 1) for axis in (0, 1)])
    ridge = field[(field > 0) & (field >= around.max(0) - 1e-6)]
    return float(np.quantile(ridge, 0.6)), float(np.quantile(ridge, 0.1))
