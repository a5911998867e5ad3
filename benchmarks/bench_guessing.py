"""Whether the time of a refusal tells how near a guessed key was: guesses that share more and more with a real key.

All kinds by turns, in one process, on a vault of many principals; the time is that of looking a key up, without the
network, which adds noise of its own.

    python benchmarks/bench_guessing.py [--principals 50] [--guesses 2000]
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

import numpy as np

from intarsia.errors import ForbiddenError
from intarsia.vault import Vault

SHARED = (0, 1, 8, 32, 42)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--principals", type=int, default=50)
    parser.add_argument("--guesses", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        vault = Vault.create(Path(scratch) / "guessed.vault", backbone="uvit-tiny-8")
        keys = [vault.add_principal(f"principal-{k}") for k in range(options.principals)]
        kinds = {f"{count} characters of the secret": near(keys[0], count) for count in SHARED}
        kinds["another id"] = "int_" + "0" * 12 + "_" + keys[0].split("_", 2)[2]
        found = measured(vault, kinds, options.guesses)
    print(f"{options.principals} principals, {options.guesses} guesses of each kind, microseconds")
    print("| a guess that shares | p25 | p50 | p75 |")
    print("|---|---|---|---|")
    for kind, micros in found.items():
        print(f"| {kind} | {' | '.join(f'{each:.1f}' for each in np.percentile(micros, [25, 50, 75]))} |")


def near(key: str, count: int) -> str:
    """A wrong key with the right id and the first `count` characters of the secret."""
    head, id, secret = key.split("_", 2)
    other = "".join("A" if each != "A" else "B" for each in secret[count:])
    return f"{head}_{id}_{secret[:count]}{other}"


def measured(vault: Vault, kinds: dict[str, str], guesses: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    order = np.random.default_rng(0)
    for _ in range(guesses):
        for kind in order.permutation(list(kinds)):
            began = time.perf_counter_ns()
            with contextlib.suppress(ForbiddenError):
                vault.identify(kinds[kind])
            found[kind].append((time.perf_counter_ns() - began) / 1000)
    return found


if __name__ == "__main__":
    main()
