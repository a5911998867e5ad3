"""The kernel distance against plain loops, and without bias."""

from __future__ import annotations

import numpy as np
import pytest

from intarsia.audit import kernel_distance
from intarsia.errors import InputError

from . import plain
from .plain import features


def test_equals_plain_loops():
    first, second = features(7, 3, 1), features(5, 3, 2) + 0.5
    assert kernel_distance(first, second) == pytest.approx(plain.kernel(first, second), rel=1e-12)


def test_blocks_are_averaged():
    first, second = features(8, 3, 1), features(10, 3, 2) + 0.5
    by_hand = (plain.kernel(first[:4], second[:5]) + plain.kernel(first[4:], second[5:])) / 2
    assert kernel_distance(first, second, block=4) == pytest.approx(by_hand, rel=1e-12)


def test_is_unbiased():
    """Between equal distributions it is zero on average, also in blocks; the biased form would be about 0.4 here."""
    for block in (10, 1000):
        found = [kernel_distance(features(20, 4, "a", k), features(20, 4, "b", k), block=block) for k in range(300)]
        error = np.std(found) / len(found) ** 0.5
        assert abs(np.mean(found)) < 3 * error
        assert 3 * error < 0.1


def test_features_of_two_networks_are_refused():
    with pytest.raises(InputError, match="one network only"):
        kernel_distance(features(4, 3), features(4, 2))
