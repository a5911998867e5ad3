"""Each room imports only from those above it, and `import intarsia` is quick and brings nothing that is optional."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "intarsia"

ROOMS = (
    "errors",
    "beside",
    "checks",
    "digests",
    "merkle",
    "files",
    "diffusion",
    "data",
    "backbone",
    "routers",
    "compartments",
    "composition",
    "credit",
    "audit",
    "ledger",
    "vault",
    "experiments",
    "integrations",
    "serving",
    "cli",
)

# `python -m intarsia` is the command line.
SAME_AS = {"__main__": "cli"}

# What a room may load merely by being imported; everything else goes through errors.require, inside the function.
CORE = {"PIL", "cryptography", "fsspec", "numpy", "packaging", "safetensors", "sqlalchemy", "torch"}
MORE = {
    "integrations": {"accelerate", "diffusers", "peft", "ray", "transformers"},
    "serving": {"fastapi", "h11", "prometheus_client", "pydantic", "ray", "starlette", "uvicorn"},
    "cli": {"rich", "typer"},
}

NOT_AT_IMPORT = {
    "diffusers",
    "fastapi",
    "intarsia.cli",
    "intarsia.serving",
    "matplotlib",
    "pandas",
    "peft",
    "pyarrow",
    "ray",
    "rich",
    "sklearn",
    "transformers",
    "typer",
}
SECONDS_BEYOND_TORCH = 0.5
LOADERS = {"__import__", "import_module", "require"}


class Import(NamedTuple):
    line: int
    target: str
    eager: bool  # runs when the module is imported


def imports_of(source: str, package: str) -> Iterator[Import]:
    """Every import in `source`: relative ones resolved against `package`, those by name (import_module) included."""

    def walk(node: ast.AST, eager: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, eager) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            ancestors = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*ancestors, *([node.module] if node.module else [])])
            yield from (Import(node.lineno, f"{base}.{alias.name}", eager) for alias in node.names)
        elif isinstance(node, ast.Call) and (target := loaded_by_name(node)):
            yield Import(node.lineno, target, eager)
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        lazy = lazy or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, eager and not lazy)

    yield from walk(ast.parse(source), True)


def loaded_by_name(call: ast.Call) -> str | None:
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    first = call.args[0] if call.args else None
    if function in LOADERS and isinstance(first, ast.Constant) and isinstance(first.value, str):
        return first.value
    return None


def problem_with(found: Import, room: str) -> str | None:
    """What is wrong with an import that stands in `room` ("" is the package's own `__init__`), or None."""
    top, _, rest = found.target.partition(".")
    if top != "intarsia":
        optional = found.eager and top not in sys.stdlib_module_names | CORE | MORE.get(room, set())
        return f"loads the optional '{top}' at import; use errors.require inside the function" if optional else None
    target = rest.split(".")[0]
    if not room:
        return f"imports the room '{target}' eagerly; name it in _HOMES instead" if found.eager else None
    if target not in ROOMS:
        return f"imports '{found.target}' from the package's face; import it from its room"
    if ROOMS.index(target) > ROOMS.index(room):
        return f"imports '{found.target}', but {target} stands below {room}"
    return None


def problems_in(module: str, source: str, *, is_package: bool = False) -> list[str]:
    name = module.partition(".")[2].partition(".")[0]
    room = SAME_AS.get(name, name)
    if room and room not in ROOMS:
        return [f"{module}: '{room}' is no room; put it into one, or enter it in the table of this test"]
    package = module if is_package else module.rpartition(".")[0]
    found = ((each, problem_with(each, room)) for each in imports_of(source, package))
    return [f"{module}:{each.line}: {problem}" for each, problem in found if problem]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if path.name == "__init__.py" else parts), path


def test_direction_of_every_import():
    found = [
        problem
        for module, path in modules()
        for problem in problems_in(module, path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("intarsia.data.images", "import intarsia.vault", "vault stands below data"),
        ("intarsia.data.images", "from intarsia.vault import Vault", "vault stands below data"),
        ("intarsia.data.images", "from intarsia import vault", "vault stands below data"),
        ("intarsia.data.images", "from ..vault.index import Index", "vault stands below data"),
        ("intarsia.data.images", "from .. import vault", "vault stands below data"),
        ("intarsia.data.images", "def f():\n    from intarsia.cli import main", "cli stands below data"),
        ("intarsia.data.images", "if TYPE_CHECKING:\n    import intarsia.cli", "cli stands below data"),
        ("intarsia.data.images", "importlib.import_module('intarsia.cli')", "cli stands below data"),
        ("intarsia.errors", "import intarsia.diffusion", "diffusion stands below errors"),
        ("intarsia.data.images", "from intarsia import Vault", "from the package's face"),
        ("intarsia.data.images", "import intarsia", "from the package's face"),
        ("intarsia.extras", "", "is no room"),
        ("intarsia", "from intarsia.errors import IntarsiaError", "eagerly"),
        ("intarsia.data.images", "import sklearn.datasets", "loads the optional 'sklearn'"),
        ("intarsia.data.images", "try:\n    import pyarrow\nfinally:\n    pass", "loads the optional 'pyarrow'"),
        ("intarsia.data.images", "class A:\n    import matplotlib", "loads the optional 'matplotlib'"),
        ("intarsia.vault.store", "import typer", "loads the optional 'typer'"),
    ],
)
def test_direction_is_enforced(module: str, source: str, complaint: str):
    (problem,) = problems_in(module, source)
    assert complaint in problem


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("intarsia.vault.store", "from intarsia.data.images import decode\nfrom intarsia.errors import VaultError"),
        ("intarsia.vault.store", "from . import index\nfrom ..errors import VaultError"),
        ("intarsia.vault.store", "import json\nimport torch.nn\nfrom PIL import Image"),
        ("intarsia.vault.store", "def f():\n    return require('pyarrow.parquet', 'experiments')"),
        ("intarsia.vault.store", "if TYPE_CHECKING:\n    import matplotlib.figure"),
        ("intarsia.cli.train", "import typer\nfrom intarsia.vault import Vault"),
        ("intarsia.__main__", "from intarsia.cli import main"),
        ("intarsia", "if TYPE_CHECKING:\n    from intarsia.vault import Vault"),
    ],
)
def test_direction_allows(module: str, source: str):
    assert problems_in(module, source) == []


def test_direction_resolves_relative_imports_of_a_package():
    assert problems_in("intarsia.data", "from .images import decode", is_package=True) == []
    (problem,) = problems_in("intarsia.data", "from ..vault import Vault", is_package=True)
    assert "vault stands below data" in problem


PROBE = """
import json, sys, time
import torch
before, began = set(sys.modules), time.perf_counter()
import intarsia
seconds = time.perf_counter() - began
at_import = set(sys.modules) - before
for name in intarsia.__all__:
    getattr(intarsia, name)
in_use = set(sys.modules) - before
print(json.dumps({"seconds": seconds, "at_import": sorted(at_import), "in_use": sorted(in_use)}))
"""


def probe() -> dict:
    """Import intarsia in a process of its own: seconds beyond torch, modules it brought, modules its names bring."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_brings_nothing_optional():
    found = probe()
    assert "intarsia" in found["at_import"]
    assert NOT_AT_IMPORT & set(found["at_import"]) == set()
    assert NOT_AT_IMPORT & set(found["in_use"]) == set(), "using a public name loaded an extra"


def test_import_is_quick():
    tried = []
    while len(tried) < 3:  # the best of three: a busy machine is not a slow import
        tried.append(probe()["seconds"])
        if tried[-1] < SECONDS_BEYOND_TORCH:
            return
    pytest.fail(f"import intarsia took {min(tried):.2f} s beyond torch's own; the limit is {SECONDS_BEYOND_TORCH} s")
