"""Checks of the numbers that a user may set, so that every settings object refuses them in the same words."""

from __future__ import annotations

import math

from intarsia.errors import SettingsError

MOST_SEEDS = 2**63 - 1


def check_whole(name: str, value: object, *, least: int = 1, most: int | None = None) -> None:
    """Refuse what is not a whole number in `least`..`most`.

    Raises:
        SettingsError: says what was found and what was expected.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= least and (most is None or value <= most):
        return
    expected = f"at least {least}" if most is None else f"from {least} to {most}"
    raise SettingsError(f"{name} is {value!r}, expected a whole number, {expected}")


def check_seed(value: object, name: str = "seed") -> None:
    """Refuse what is not a whole number from 0 to 2^63 - 1.

    Raises:
        SettingsError: says what was found and what was expected.
    """
    check_whole(name, value, least=0, most=MOST_SEEDS)


def check_number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse what is not a finite number within the bounds; `above` and `below` exclude theirs.

    Raises:
        SettingsError: says what was found and what was expected.
    """
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    ):
        return
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    stated = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
    raise SettingsError(f"{name} is {value!r}, expected a finite number{', ' if stated else ''}{stated}")
