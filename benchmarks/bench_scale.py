"""What grows with the number of sources, and what does not: disk, memory, looking up, deciding, routing, forgetting.

Vaults of sources of noise, trained for one step: what they cost does not depend on what was learned. Beside them the
router alone, with the same parts over and over, up to more sources than a vault can be made of here. Seconds are of the
processor, on one thread, the least of several turns: other work on the machine changes them little.

    python benchmarks/bench_scale.py [--backbone uvit-tiny-8] [--sources 10 100] [--routed 10 100 1000 10000]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from intarsia.compartments import TrainSettings
from intarsia.composition import CompartmentMember
from intarsia.composition.together import Asked, x0_hats
from intarsia.data import Source
from intarsia.diffusion import keyed_generator
from intarsia.routers import GaussianBank, GaussianPart
from intarsia.vault import Vault
from intarsia.vault.loaded import Loaded
from intarsia.vault.parts import read_part

PICTURES, ROWS, TURNS = 16, 16, 3
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="uvit-tiny-8")
    parser.add_argument("--sources", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--routed", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "scale.vault"
        vault, columns = Vault.create(root, backbone=options.backbone), {}
        for count in sorted(options.sources):
            added = grow(vault, count)
            columns[str(count)] = added | measured(vault, Path(scratch))
        print(f"{options.backbone}, {PICTURES} pictures per source, LoRA as `intarsia train` takes it")
        table("sources", columns)
        print()
        table(f"routing {ROWS} images", {str(count): routed(vault, count) for count in options.routed})


def grow(vault: Vault, count: int) -> dict[str, str]:
    """Add and train sources until there are so many; what one of them took."""
    channels, size, _ = vault.image_shape
    begun = len(vault.sources())
    names = [f"source-{k:05d}" for k in range(begun, count)]

    def add() -> None:
        for name in names:
            images = keyed_generator("scale", name).integers(0, 256, (PICTURES, size, size, channels), dtype=np.uint8)
            files = [f"{k}.png" for k in range(PICTURES)]
            vault.add_source(name, Source.build(name, owner=name, licence="CC0-1.0", images=images, file_names=files))

    def train() -> None:
        for name in names:
            vault.train(name, TrainSettings(steps=1, rows=2, warmup=0))

    adding, training = once(add) / len(names), once(train) / len(names)
    return {"add one, ms": f"{1000 * adding:.0f}", "train one for a step, ms": f"{1000 * training:.0f}"}


def measured(vault: Vault, scratch: Path) -> dict[str, str]:
    """What the vault as it stands takes."""
    count = len(vault.sources())
    vault.add_principal(f"everything-{count}")
    vault.grant([info.name for info in vault.sources()], f"everything-{count}")
    loaded = Loaded(2**40)
    few = ["source-00000", "source-00005"]

    def compose(names: Sequence[str] | None, kept: Loaded | None = None) -> Callable[[], object]:
        return lambda: vault.compose(names, precision="float32", loaded=kept)

    vault.compose(precision="float32", loaded=loaded)
    found = {
        "disk per source, KiB": f"{size_of(vault.root) / count / 1024:.0f}",
        "memory per compartment, KiB": f"{loaded.nbytes / count / 1024:.0f}",
        "open and list, ms": ms(lambda: Vault.open(vault.root).sources()),
        "decide for one who has all, ms": ms(lambda: vault.decide(f"everything-{count}")),
        "decide on two sources, ms": ms(lambda: vault.decide(f"everything-{count}", few)),
        "compose two, ms": ms(compose(few)),
        "compose all, ms": ms(compose(None)),
        "compose all that are in memory, ms": ms(compose(None, loaded)),
        "verify, ms": ms(vault.verify, turns=1),
    }
    copy = scratch / "copy.vault"
    shutil.copytree(vault.root, copy)
    other = Vault.open(copy)
    sample = other.source("source-00001").manifest.ids[0]
    found["forget one picture, ms"] = ms(lambda: other.forget("source-00001", sample), turns=1)
    found["forget one source, ms"] = ms(lambda: other.forget("source-00002"), turns=1)
    shutil.rmtree(copy)
    return found


def routed(vault: Vault, count: int) -> dict[str, str]:
    """The weights of so many sources for `ROWS` images at one step, against a forward of one of them."""
    infos, core = vault.compartments(), vault.core
    part = read_part(vault.compartment(infos[0].name), "gaussian", core)
    assert isinstance(part, GaussianPart)
    bank = GaussianBank([part] * count)
    x_t, t = torch.randn(ROWS, *vault.backbone.latent_shape), torch.full((ROWS,), 0.5)
    alpha, sigma = vault.backbone.schedule.alpha(t), vault.backbone.schedule.sigma(t)
    member = CompartmentMember(vault.backbone, vault.compartment(infos[0].name), precision="float32")
    asked = [Asked(member, x_t, t, [None] * ROWS)]
    bank.log_density(x_t, alpha, sigma)
    x0_hats(asked)
    tensors = sum(each.nbytes for each in part.tensors().values())
    routing = least(lambda: bank.log_density(x_t, alpha, sigma))
    forward = least(lambda: x0_hats(asked))
    return {
        "weights, ms": f"{1000 * routing:.2f}",
        "a forward of one member, ms": f"{1000 * forward:.2f}",
        "weights over a forward": f"{routing / forward:.2f}",
        "router parts in memory, MiB": f"{tensors * count / MIB:.1f}",
    }


def size_of(root: Path) -> int:
    """Of all files that belong to sources, in bytes."""
    public = (root / "backbone", root / "core")
    files = (path for path in root.rglob("*") if path.is_file() and not any(map(path.is_relative_to, public)))
    return sum(path.stat().st_size for path in files)


def once(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def least(work: Callable[[], object], turns: int = TURNS) -> float:
    return min(once(work) for _ in range(turns))


def ms(work: Callable[[], object], turns: int = TURNS) -> str:
    return f"{1000 * least(work, turns):.1f}"


def table(head: str, columns: Mapping[str, Mapping[str, str]]) -> None:
    """In Markdown."""
    print(f"| {head} | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for row in next(iter(columns.values())):
        print(f"| {row} | {' | '.join(each[row] for each in columns.values())} |")


if __name__ == "__main__":
    main()
