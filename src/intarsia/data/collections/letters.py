"""Letters drawn from fonts: the public core set of the digit examples. The fonts come with matplotlib."""

from __future__ import annotations

import string
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from intarsia.data.collections.glyphs import GRID, Glyphs, Ink, different_pictures
from intarsia.data.source import Source
from intarsia.errors import require

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


def letters(count: int, *, size: int = 8, seed: int = 0) -> Source:
    """`count` different pictures of A-Z and a-z, white ink on black, as a source named "letters"; `label` = the letter.

    Picture k depends on (seed, k) alone: a shorter set is a prefix of a longer one, and another seed gives other draws.

    Raises:
        MissingExtra: matplotlib is not installed.
        SettingsError: `count` or `size` is not positive or far too large, or there are not so many different pictures
            of this size.
    """
    drawn = different_pictures(_glyphs(), count, size=size, seed=seed)
    shown = [LETTERS[picture.glyph % len(LETTERS)] for picture in drawn]
    return Source.build(
        "letters",
        owner="the intarsia authors",
        licence=LICENCE,
        attribution=ATTRIBUTION,
        images=np.stack([picture.image for picture in drawn]),
        file_names=[f"{seed}-{picture.index:06d}.png" for picture in drawn],
        texts=[f"the letter {letter}" for letter in shown],
        labels=shown,
    )


@lru_cache(maxsize=1)
def _glyphs() -> Glyphs:
    """Every letter of every font, number font * len(LETTERS) + letter."""
    folder = Path(require("matplotlib", "experiments").get_data_path()) / "fonts" / "ttf"
    return Glyphs.of("letters", np.stack([_ink(folder / font, letter) for font in FONTS for letter in LETTERS]))


def _ink(font: Path, letter: str) -> Ink:
    """The letter as ink (GRID, GRID), centred, at one size for the whole font."""
    face = ImageFont.truetype(str(font), round(GRID * 0.62))
    canvas = Image.new("L", (GRID, GRID))
    ImageDraw.Draw(canvas).text((GRID / 2, GRID / 2), letter, fill=255, font=face, anchor="mm")
    return np.asarray(canvas) > 127
