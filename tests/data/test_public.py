"""The public face of the room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import intarsia.data
import intarsia.data.collections

SRC = str(Path(intarsia.data.__file__).parents[2])


def test_all_is_sorted_and_true():
    for module in (intarsia.data, intarsia.data.collections):
        assert list(module.__all__) == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


def test_importing_the_room_loads_no_extra():
    code = (
        "import sys, intarsia.data, intarsia.data.collections; "
        "print([m for m in ('pandas', 'pyarrow', 'sklearn', 'matplotlib', 'resvg_py', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": SRC}
    )
    assert done.stdout.strip() == "[]"
