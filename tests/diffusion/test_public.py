from __future__ import annotations

import subprocess
import sys

import intarsia.diffusion


def test_public_names_are_curated_sorted_and_there() -> None:
    names = intarsia.diffusion.__all__
    constants, classes, functions = ([n for n in names if kind(n)] for kind in (str.isupper, _is_class, str.islower))
    assert names == sorted(constants) + sorted(classes) + sorted(functions)
    assert all(hasattr(intarsia.diffusion, name) for name in names)


def test_pure_mathematics_needs_torch_and_numpy_only() -> None:
    heavy = ("PIL", "diffusers", "pandas", "rich", "safetensors", "scipy", "sklearn", "sqlalchemy", "typer")
    code = f"import sys, intarsia.diffusion; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def _is_class(name: str) -> bool:
    return name[0].isupper() and not name.isupper()
