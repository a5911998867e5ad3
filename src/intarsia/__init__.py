"""Generative models inlaid from compartments: one per data source, trained alone, joined only while an image is drawn.

A room is imported when one of its names is first used, so that `import intarsia` itself loads neither torch nor an
optional dependency.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intarsia.errors import IntarsiaError

__all__ = ["IntarsiaError", "__version__"]

__version__ = "0.1.0"

# Where each public name lives. A test holds this table, the imports above and `__all__` together.
_HOMES = {"IntarsiaError": "intarsia.errors"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'intarsia' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
