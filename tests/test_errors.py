"""The checks of numbers that every room shares."""

from __future__ import annotations

import math

import pytest

from intarsia.errors import SettingsError, check_finite, check_whole


@pytest.mark.parametrize(
    ("value", "found"),
    [(0, "0"), (-3, "-3"), (9, "9"), (True, "True"), (1.0, "1.0"), (10**40, "more than 30 digits")],
)
def test_a_whole_number_out_of_bounds_is_named(value: int, found: str):
    with pytest.raises(SettingsError, match=r"^steps is .*, expected a whole number from 1 to 8$") as raised:
        check_whole("steps", value, least=1, most=8)
    assert found in str(raised.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.0, 2.5])
def test_a_number_out_of_bounds_is_named(value: float):
    with pytest.raises(SettingsError, match=rf"^lr is {value:g}, expected a finite number above 0 to 2$"):
        check_finite("lr", value, above=0, most=2)


def test_what_lies_within_the_bounds_passes():
    check_whole("seed", 2**63 - 1)
    check_whole("steps", 8, least=1, most=8)
    check_finite("scale", -1e300)
    check_finite("ema", 0.0, least=0)
    check_finite("ema", 1.0, most=1)
