"""The checks of numbers that every room shares."""

from __future__ import annotations

import math

import pytest

from intarsia.checks import check_number, check_seed, check_whole
from intarsia.errors import SettingsError


@pytest.mark.parametrize("value", [0, -3, 9, True, 1.0, "1"])
def test_a_whole_number_out_of_bounds_is_named(value: object):
    with pytest.raises(SettingsError, match=f"^steps is {value!r}, expected a whole number, from 1 to 8$"):
        check_whole("steps", value, most=8)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.0, 2.5])
def test_a_number_out_of_bounds_is_named(value: float):
    with pytest.raises(SettingsError, match=f"^lr is {value!r}, expected a finite number, above 0 and at most 2$"):
        check_number("lr", value, above=0, most=2)


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.0])
def test_bounds_may_be_within_or_without(value: float):
    with pytest.raises(SettingsError, match=f"^ema is {value!r}, expected a finite number, at least 0 and below 1$"):
        check_number("ema", value, least=0, below=1)


@pytest.mark.parametrize("value", [-1, 2**63])
def test_a_seed_out_of_bounds_is_named(value: int):
    with pytest.raises(SettingsError, match=f"^seed is {value}, expected a whole number, from 0 to "):
        check_seed(value)


def test_what_lies_within_the_bounds_passes():
    check_seed(2**63 - 1)
    check_whole("steps", 8, most=8)
    check_number("scale", -1e300)
    check_number("ema", 0.0, least=0, below=1)
    check_number("cooldown", 1.0, above=0, most=1)
