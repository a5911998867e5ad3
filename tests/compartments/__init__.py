"""Tests of the room `compartments`; a package, so that they can share helpers."""
