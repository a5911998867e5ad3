"""A training step of 64 deep prompts: ours against the plain formulation, side by side in one run.

Plain: prompt tokens (B, 64, D) run through every layer as further tokens and are dropped afterwards, with torch's fused
attention. Ours: only their keys and values are computed, once for all images, and attention is written out. Both train
the same prompts on the same frozen backbone with the same Adam; precision is the same on both sides, the gain from bf16
is shown apart.

    python benchmarks/bench_training.py [--preset uvit-tiny-32] [--rows 64] [--repeats 7]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from plain_prompts import plain_forward
from torch import Tensor

from intarsia.backbone import UViT, build, resolve_precision
from intarsia.backbone.precision import PRECISIONS
from intarsia.backbone.uvit import as_uvit
from intarsia.compartments.adapters import DeepPrompts
from intarsia.compartments.pieces import Adapted

TOKENS = 64


def ours(network: UViT, prompts: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
    pieces = DeepPrompts(tokens=TOKENS).pieces(network, prompts)
    return network(x, t, adaptation=Adapted([(pieces, len(x))]))


Forward = Callable[[UViT, dict[str, Tensor], Tensor, Tensor], Tensor]


def stepper(forward: Forward, network: UViT, rows: int, dtype: torch.dtype) -> Callable[[], float]:
    """One Adam step on the prompts, from fixed inputs; returns the loss."""
    config = network.config
    masters = {
        name: p.requires_grad_() for name, p in DeepPrompts(tokens=TOKENS).initial(network, classes=0, seed=0).items()
    }
    optimiser = torch.optim.Adam(list(masters.values()), lr=0.1)
    x = torch.randn(rows, config.channels, config.image_size, config.image_size)
    t = torch.rand(rows) * 999

    def step() -> float:
        working = {name: p.to(dtype) for name, p in masters.items()}
        loss = (forward(network, working, x.to(dtype), t).float() - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="uvit-tiny-32")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    backbone = build(options.preset)
    fast = resolve_precision("auto")
    networks = {
        p: as_uvit(backbone.network_in(p), "this benchmark", "take another preset")
        for p in dict.fromkeys(("float32", fast))
    }
    contenders = {
        f"{name} {precision}": stepper(forward, network, options.rows, PRECISIONS[precision])
        for precision, network in networks.items()
        for name, forward in (("plain", plain_forward), ("ours", ours))
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(options.repeats + 1):  # the first round warms up; turns alternate, so that noise hits all alike
        for name, step in contenders.items():
            begin = time.perf_counter()
            step()
            if round_:
                seconds[name].append(time.perf_counter() - begin)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    print(
        f"{options.preset}, {options.rows} rows, {TOKENS} prompt tokens, {torch.get_num_threads()} threads, "
        f"median of {options.repeats}"
    )
    for name, value in median.items():
        print(f"  {name:16} {value * 1e3:8.1f} ms   {options.rows / value:7.1f} images/s")
    for precision in dict.fromkeys(("float32", fast)):
        ratio = median[f"plain {precision}"] / median[f"ours {precision}"]
        print(f"  ours over plain, both {precision}: {ratio:.2f}x")
    print(f"  {fast} over float32, both ours: {median['ours float32'] / median[f'ours {fast}']:.2f}x")
    print(f"  in all, ours {fast} over plain float32: {median['plain float32'] / median[f'ours {fast}']:.2f}x")


if __name__ == "__main__":
    main()
