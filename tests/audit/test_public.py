"""The face of the room."""

from __future__ import annotations

from intarsia import audit


def test_all_is_sorted_and_whole():
    assert sorted(audit.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name)) == audit.__all__
    assert all(hasattr(audit, name) for name in audit.__all__)
