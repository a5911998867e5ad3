"""Handwritten digits from inside scikit-learn: nothing to download, several owners to share them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from intarsia.data.source import Source
from intarsia.errors import SettingsError, UnknownName, require

SIZE = 8
LICENCE = "CC-BY-4.0"
ATTRIBUTION = (
    "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, "
    "https://doi.org/10.24432/C50P49; the 1,797 test images as scikit-learn ships them"
)
# Five workshops, each named after its wood, two digits each.
DIGIT_OWNERS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "birch": ("0", "1"),
        "cherry": ("2", "3"),
        "ebony": ("4", "5"),
        "maple": ("6", "7"),
        "walnut": ("8", "9"),
    }
)
_CLASSES = tuple("0123456789")


def digits(owners: Mapping[str, Sequence[str]] | None = None) -> list[Source]:
    """The 1,797 digits, 8x8, white ink on black, as one source per owner; `label` is "0".."9".

    `owners` maps the name of a source to the digits it holds (default: `DIGIT_OWNERS`); digits that nobody holds are
    left out. Ink counts 0..16 of the original become 0..255.

    Raises:
        MissingExtra: scikit-learn is not installed.
        SettingsError: a digit has two owners, or an owner has none.
        UnknownName: a class that is no digit.
    """
    owners = DIGIT_OWNERS if owners is None else owners
    _check_owners(owners)
    bunch = require("sklearn.datasets", "experiments").load_digits()
    images = ink_to_grey(bunch.images)
    return [
        Source.build(
            name,
            owner=name,
            licence=LICENCE,
            attribution=ATTRIBUTION,
            images=images[rows],
            file_names=[f"{row:04d}.png" for row in rows],
            texts=[f"the digit {bunch.target[row]}" for row in rows],
            labels=[str(bunch.target[row]) for row in rows],
        )
        for name, classes in owners.items()
        for rows in [np.flatnonzero(np.isin(bunch.target.astype(str), list(classes)))]
    ]


def ink_to_grey(counts: np.ndarray) -> np.ndarray:
    """Ink counts (N, H, W) in 0..16 to uint8 (N, H, W, 1) in 0..255."""
    return np.rint(np.asarray(counts, dtype=np.float64) * (255 / 16)).astype(np.uint8)[..., None]


def _check_owners(owners: Mapping[str, Sequence[str]]) -> None:
    held = Counter(digit for classes in owners.values() for digit in classes)
    for digit, count in held.items():
        if digit not in _CLASSES:
            raise UnknownName("digit", str(digit), _CLASSES)
        if count > 1:
            raise SettingsError(f"the digit {digit} has {count} owners; give each digit to one owner at most")
    for name, classes in owners.items():
        if not classes:
            raise SettingsError(f"the owner '{name}' holds no digit; give it at least one, or leave it out")
