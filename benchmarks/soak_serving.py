"""A service over HTTP under load, over time, and when things go wrong; what it did is written as a page of results.

Load: clients with different subsets at once, against one at a time. Soak: mixed traffic for minutes, with the memory of
the process, and compartments that are read and given up a thousand times. Faults: killed under load, a full disk, slow
clients, grants that are taken away while images are drawn.

    python benchmarks/soak_serving.py [--quick] [--minutes 4] [--only load soak …] [--report FILE.md]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_serving import made
from served import served
from soak_faults import full_disk, killed, killed_while_forgetting, revoked, slow_clients
from soak_load import cycles, load, soak
from soak_report import page

SECTIONS = ("load", "soak", "cycles", "killed", "forgetting", "disk", "slow", "revoked")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a look whether it works, in about two minutes")
    parser.add_argument("--minutes", type=float, default=4.0, help="of mixed traffic")
    parser.add_argument("--backbone", default="uvit-tiny-32", help="of the load; the rest takes uvit-tiny-8")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--report", type=Path, help="page of results to write; beside it the figures as JSON")
    options = parser.parse_args()
    began = time.monotonic()
    figures: dict[str, Any] = {"machine": _machine(), "command": _command(options)}
    with tempfile.TemporaryDirectory() as scratch:
        for name, section in _sections(Path(scratch), options).items():
            if name in options.only:
                print(f"{time.monotonic() - began:6.0f} s  {name} ...", flush=True)
                figures[name] = section()
    figures["seconds"] = time.monotonic() - began
    text = page(figures)
    if options.report is None:
        print(text)
        return
    options.report.write_text(text, encoding="utf-8")
    folder = options.report.with_suffix("")
    folder.mkdir(exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _sections(scratch: Path, options: argparse.Namespace) -> Mapping[str, Callable[[], Any]]:
    quick = options.quick
    names = [f"source-{k}" for k in range(6)]
    vaults: dict[str, Path] = {}

    def vault(backbone: str) -> Path:
        if backbone not in vaults:
            vaults[backbone] = made(scratch / f"{backbone}.vault", backbone).root
        return vaults[backbone]

    def measured(backbone: str, work: Callable[..., Any], *serving: str, **settings: Any) -> Any:
        with served(vault(backbone), *serving) as service:
            return work(service, names, **settings)

    sizes = {"images": 1, "rounds": 1, "steps": 4} if quick else {"images": 3, "rounds": 2, "steps": 20}
    small = partial(measured, "uvit-tiny-8")
    # Nothing fits into a byte: whatever is asked for is read, and given up again.
    nothing_stays = ("--memory", "1e-9")
    return {
        "load": lambda: measured(options.backbone, load, clients=16, **sizes),
        "soak": lambda: small(soak, minutes=0.25 if quick else options.minutes, clients=8),
        "cycles": lambda: small(cycles, *nothing_stays, times=60 if quick else 1000),
        "killed": lambda: killed(vault("uvit-tiny-8"), (), times=1 if quick else 5, clients=8),
        "forgetting": lambda: killed_while_forgetting(vault("uvit-tiny-8"), ()),
        "disk": lambda: full_disk(vault("uvit-tiny-8"), scratch, ()),
        "slow": lambda: small(
            lambda service, names: slow_clients(service, slow=10 if quick else 50, seconds=5 if quick else 30)
        ),
        "revoked": lambda: small(revoked, times=2 if quick else 20),
    }


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, Python {platform.python_version()}"
    )


def _command(options: argparse.Namespace) -> str:
    words = ["python benchmarks/soak_serving.py"]
    words += ["--quick"] if options.quick else [f"--minutes {options.minutes:g}"]
    words += [f"--backbone {options.backbone}"]
    words += [] if tuple(options.only) == SECTIONS else ["--only", *options.only]
    return " ".join(words)


if __name__ == "__main__":
    main()
