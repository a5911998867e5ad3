"""A differentially private step: ours against our plain step, and against Opacus on the same model, in one run.

Both adapters are trained on the same frozen backbone. Ours: gradients of single samples from copies of the adapter and
one backward pass. Opacus: gradients of single samples by hooks, with LoRA put on by peft, and prompts as an embedding
whose tokens run through every layer. All of them clip, add Gaussian noise and take a step of Adam. Ours also draws who
takes part, times and noise; Opacus gets these for nothing. Times are of the processor, on one thread.

    python benchmarks/bench_privacy.py [--preset uvit-tiny-32] [--rows 64] [--repeats 7] [--precision float32]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from plain_prompts import plain_forward
from torch import Tensor, nn

from intarsia.backbone import Backbone, UViT, build, resolve_precision
from intarsia.backbone.precision import PRECISIONS
from intarsia.backbone.uvit import as_uvit
from intarsia.compartments import (
    Compartment,
    DeepPrompts,
    Lora,
    Mechanism,
    Privacy,
    PrivateSteps,
    SecretNoise,
    TrainData,
    Trainee,
    TrainSettings,
)
from intarsia.compartments.adapters import Kind
from intarsia.diffusion import keyed_normal
from intarsia.digests import digest_of

KINDS: Sequence[Kind] = (DeepPrompts(tokens=64), Lora(rank=16))
CLIP, NOISE = 1.0, 1.5


class Prompted(nn.Module):
    """Prompts as whoever uses Opacus would write them: rows of an embedding, looked up for every image."""

    def __init__(self, network: UViT, prompts: dict[str, Tensor]):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.names, self.tokens = list(prompts), next(iter(prompts.values())).shape[1]
        self.tables = nn.ModuleList(nn.Embedding.from_pretrained(p[0].clone(), freeze=False) for p in prompts.values())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        rows = torch.arange(self.tokens).expand(len(x), -1)
        prompts = {name: table(rows) for name, table in zip(self.names, self.tables, strict=True)}
        return plain_forward(self.network, prompts, x, t)


def ours(backbone: Backbone, kind: Kind, rows: int, precision: str, *, private: bool) -> Callable[[], object]:
    """A whole step of a trainee."""
    shape = backbone.latent_shape
    ids = [digest_of(str(k).encode()) for k in range(rows)]
    data = TrainData("all", keyed_normal((rows, *shape), "bench"), ids, [None] * rows)
    settings = TrainSettings(adapter=kind, steps=1000, rows=rows, precision=precision, threads=1)
    if not private:
        return Trainee(backbone, data, settings).step
    privacy = Privacy(epsilon=8, clip=CLIP, draws=1, microbatch=rows)
    mechanism = Mechanism(size=rows, rate=1.0, steps=1000, noise_multiplier=NOISE)
    steps = PrivateSteps(privacy, mechanism, SecretNoise.generate())
    return Trainee(backbone, data, replace(settings, privacy=privacy), private=steps).step


def opacus(backbone: Backbone, kind: Kind, rows: int, precision: str) -> Callable[[], object]:
    """A step of Opacus, from fixed inputs; all of it in the precision that our matrix products have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of its own dependencies, on import
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer
    network = as_uvit(copy.deepcopy(backbone.network), "this benchmark", "take another preset")
    params = kind.initial(network, classes=0, seed=0)
    model = Prompted(network, params) if isinstance(kind, DeepPrompts) else with_peft(backbone, kind, params)
    dtype = PRECISIONS[resolve_precision(precision)]
    wrapped: Any = GradSampleModule(model.to(dtype), strict=False)
    tuned = [p for p in wrapped.parameters() if p.requires_grad]
    adam = torch.optim.Adam(tuned, lr=kind.default_lr)
    optimiser = DPOptimizer(adam, noise_multiplier=NOISE, max_grad_norm=CLIP, expected_batch_size=rows)
    x, t = torch.randn(rows, *backbone.latent_shape).to(dtype), torch.rand(rows) * backbone.time_scale

    def step() -> None:
        optimiser.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hooks of torch that Opacus still uses
            (wrapped(x, t) - x).square().flatten(1).mean(1).mean().backward()
        optimiser.step()

    return step


def with_peft(backbone: Backbone, kind: Kind, params: dict[str, Tensor]) -> nn.Module:
    """The network with LoRA, as plain peft puts it on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import PeftModel
    with tempfile.TemporaryDirectory() as folder:
        root = "0" * 64
        Compartment("all", ("all",), kind, params, {}, {}, {}, 1, root, backbone.digests).save(Path(folder))
        return PeftModel.from_pretrained(copy.deepcopy(backbone.network), folder, is_trainable=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="uvit-tiny-32")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--precision", default="float32", help="of matrix products: float32, or auto")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    backbone = build(options.preset)
    for kind in KINDS:
        contenders = {
            "plain": ours(backbone, kind, options.rows, options.precision, private=False),
            "private": ours(backbone, kind, options.rows, options.precision, private=True),
            "Opacus": opacus(backbone, kind, options.rows, options.precision),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for round_ in range(options.repeats + 1):  # the first warms up; turns alternate, so that noise hits all alike
            for name, step in contenders.items():
                begin = time.process_time()
                step()
                if round_:
                    seconds[name].append(time.process_time() - begin)
        median = {name: statistics.median(times) for name, times in seconds.items()}
        shown = ", ".join(f"{name} {1000 * each:.1f} ms" for name, each in median.items())
        print(f"{kind.name}, {options.rows} images, {options.precision}: {shown}")
        print(f"  private over plain {median['private'] / median['plain']:.2f}x")
        print(f"  Opacus over private {median['Opacus'] / median['private']:.2f}x")


if __name__ == "__main__":
    main()
