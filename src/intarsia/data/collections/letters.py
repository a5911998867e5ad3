"""Letters drawn from fonts: the public core set of the digit examples.

Each picture is made as the UCI digits were: a binary bitmap of four times the final side, its ink fitted to the full
height, then ink counts over 4 x 4 blocks. The fonts come with matplotlib. A glyph is kept as a signed distance field,
so that one threshold sets the width of the pen, whatever the weight of the font.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from intarsia.checks import check_seed, check_whole
from intarsia.data.collections.digits import ink_to_grey
from intarsia.data.source import Source
from intarsia.diffusion.noise import keyed_generator
from intarsia.errors import SettingsError, require

LETTERS = string.ascii_uppercase + string.ascii_lowercase
# DejaVu under the Bitstream Vera licence, STIX under the OFL, Computer Modern under the BaKoMa licence, which is free
# but has no SPDX name. Symbol fonts, and the placeholder glyphs of LastResort, are not letters.
LICENCE = "Bitstream-Vera AND OFL-1.1 AND LicenseRef-BaKoMa"
ATTRIBUTION = "Letters drawn from the DejaVu, STIX and Computer Modern (BaKoMa) fonts that matplotlib ships"
FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Oblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Italic.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf",
    "cmb10.ttf",
    "cmmi10.ttf",
    "cmr10.ttf",
    "cmss10.ttf",
    "cmti10.ttf",
    "cmtt10.ttf",
)
_GRID = 48  # side of a glyph's distance field
_BLOCK = 4  # bitmap pixels per final pixel, as in the UCI digits
_LOOK = 32  # side of the coarse looks that find the ink
_WIDTHS = (0.28, 0.74)  # narrowest and widest ink, as a share of the picture; the digits are about 0.7 wide
_WAVES = 3
_CHUNK = 512
_LARGEST = 1024  # pixels a side
_MOST_PIXELS = 2**30  # of all pictures together
_PATIENCE = 10  # draws per different picture before giving up

Field = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Draws:
    """The random numbers of a chunk of pictures; row b depends on (seed, index of picture b) alone."""

    glyph: NDArray[np.int64]  # (B,) font * len(LETTERS) + letter
    matrix: Field  # (B, 2, 2) from picture to glyph coordinates, both (x, y) in [-1, 1]
    pen: Field  # (B,) half the stroke width, in pixels of an 8 x 8 picture
    place: Field  # (B,) how much of the room beside the ink lies to its left, in [0, 1]
    wave: Field  # (B, WAVES, 5) push along u, push along v, rate along x, rate along y, phase


def letters(count: int, *, size: int = 8, seed: int = 0) -> Source:
    """`count` different pictures of A-Z and a-z, white ink on black, as a source named "letters"; `label` = the letter.

    Picture k depends on (seed, k) alone: a shorter set is a prefix of a longer one, and another seed gives other draws.

    Raises:
        MissingExtra: matplotlib is not installed.
        SettingsError: `count` or `size` is not positive or far too large, or there are not so many different pictures
            of this size.
    """
    check_whole("the size of the letters", size, most=_LARGEST)
    check_whole("the number of letters", count, most=_MOST_PIXELS // size**2)
    check_seed(seed)
    chosen: dict[bytes, tuple[int, str]] = {}
    images = []
    for index, letter, image in _pictures(size, seed):
        if len(chosen) == count:
            break
        if index >= _PATIENCE * count + _CHUNK:
            raise SettingsError(
                f"only {len(chosen)} different letters of {size} x {size} pixels turned up, {count} were asked for; "
                "ask for fewer, or for larger ones"
            )
        if chosen.setdefault(image.tobytes(), (index, letter)) == (index, letter):
            images.append(image)
    return Source.build(
        "letters",
        owner="the intarsia authors",
        licence=LICENCE,
        attribution=ATTRIBUTION,
        images=np.stack(images),
        file_names=[f"{seed}-{index:06d}.png" for index, _ in chosen.values()],
        texts=[f"the letter {letter}" for _, letter in chosen.values()],
        labels=[letter for _, letter in chosen.values()],
    )


def _pictures(size: int, seed: int) -> Iterator[tuple[int, str, NDArray[np.uint8]]]:
    """(index, letter, uint8 (size, size, 1)) without end."""
    fields, pens = _glyphs()
    # Chunks bound the memory; larger pictures come in smaller chunks.
    chunk = max(1, min(_CHUNK, _CHUNK * 64 // size**2))
    first = 0
    while True:
        draws = _draw(range(first, first + chunk), seed)
        bitmap = _bitmaps(fields[draws.glyph], pens[draws.glyph], draws, size * _BLOCK)
        blocks = bitmap.reshape(chunk, size, _BLOCK, size, _BLOCK).sum((2, 4))
        for offset, image in enumerate(ink_to_grey(blocks)):
            yield first + offset, LETTERS[draws.glyph[offset] % len(LETTERS)], image
        first += chunk


def _draw(indices: range, seed: int) -> Draws:
    numbers = np.stack([keyed_generator("letters", seed, index).random(8 + 5 * _WAVES) for index in indices])
    u = numbers.astype(np.float32)
    signed = 2 * u - 1
    glyph = np.minimum((numbers[:, 0] * len(FONTS) * len(LETTERS)).astype(np.int64), len(FONTS) * len(LETTERS) - 1)
    angle, shear, stretch = 0.22 * signed[:, 1], 0.30 * signed[:, 2], np.exp(0.22 * signed[:, 3])
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    slant = np.stack([np.stack([stretch, shear], -1), np.stack([0 * shear, 1 / stretch], -1)], -2)
    wave = u[:, 8:].reshape(-1, _WAVES, 5)
    low, high = (
        np.array([-0.06, -0.06, -2.5, -2.5, 0], np.float32),
        np.array([0.06, 0.06, 2.5, 2.5, 6.2832], np.float32),
    )
    # Sum of three uniforms: most pens are alike, few are very thin or thick.
    pen = 0.80 + 0.30 * signed[:, 4:7].mean(-1)
    return Draws(glyph, turn @ slant, pen, 0.5 + 0.3 * signed[:, 7], low + (high - low) * wave)


def _bitmaps(fields: Field, pens: Field, draws: Draws, side: int) -> NDArray[np.bool_]:
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


def _ink_box(ink: NDArray[np.bool_], window: Field) -> Field:
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
    column, row = (np.clip((place + 1) * (_GRID / 2) - 0.5, 0, _GRID - 1.001) for place in (u, v))
    left, top = column.astype(np.int32), row.astype(np.int32)
    fx, fy = column - left, row - top
    at = (np.arange(len(fields), dtype=np.int32)[:, None, None] * _GRID + top) * _GRID + left
    flat = fields.reshape(-1)
    upper = flat[at] * (1 - fx) + flat[at + 1] * fx
    lower = flat[at + _GRID] * (1 - fx) + flat[at + _GRID + 1] * fx
    return upper * (1 - fy) + lower * fy


@lru_cache(maxsize=1)
def _glyphs() -> tuple[Field, Field]:
    """Distance fields (G, GRID, GRID) of all glyphs, and (G, 2): half the width of their main and their thin strokes.

    In units of the glyph square [-1, 1], positive inside the ink.
    """
    folder = Path(require("matplotlib", "experiments").get_data_path()) / "fonts" / "ttf"
    inks = np.stack([_ink(folder / font, letter) for font in FONTS for letter in LETTERS])
    unit = 2 / _GRID
    fields = _smooth((_distance(inks) - _distance(~inks)) * unit).astype(np.float32)
    return fields, np.array([_strokes(field) for field in fields], np.float32)


def _ink(font: Path, letter: str) -> NDArray[np.bool_]:
    """The letter as ink (GRID, GRID), centred, at one size for the whole font."""
    face = ImageFont.truetype(str(font), round(_GRID * 0.62))
    canvas = Image.new("L", (_GRID, _GRID))
    ImageDraw.Draw(canvas).text((_GRID / 2, _GRID / 2), letter, fill=255, font=face, anchor="mm")
    return np.asarray(canvas) > 127


def _distance(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
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
