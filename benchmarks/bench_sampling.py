"""Composed sampling with eight compartments: ours against a plain loop over eight models, in one run, each with its FD.

Eight owners hold one digit each (0 to 7). Plain: at every step all eight models run for all images, prompt tokens
through every layer. Ours: prompt keys and values once per run, and a member runs only for the images in which its
weight is at least 0.01. Both use the same compartments, weights, noise, steps and precision.

    python benchmarks/bench_sampling.py [--count 512] [--steps 20] [--tokens 64] [--train-steps 600]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from plain_prompts import plain_forward
from stand_in import StandIn
from torch import Tensor

from intarsia.audit import DigitNetwork, Digits, fit_digit_network, make_rejects, measure, split_digits
from intarsia.backbone.precision import PRECISIONS
from intarsia.backbone.uvit import as_uvit
from intarsia.compartments import DeepPrompts, TrainSettings
from intarsia.composition import CompartmentMember, CompositeDenoiser, Full, Result, SampleSettings, sample
from intarsia.composition.member import Conditions
from intarsia.data.collections.digits import digits
from intarsia.data.collections.letters import letters
from intarsia.diffusion import expand, to_x0
from intarsia.vault import Vault

OWNERS = {f"owner-{digit}": str(digit) for digit in range(8)}


@dataclass
class PlainMember(StandIn):
    """A member as one would write it first: prompt tokens run through every layer."""

    @torch.no_grad()
    def x0_hat(self, x_t: Tensor, t: Tensor, labels: Conditions) -> Tensor:
        backbone, dtype = self.member.backbone, PRECISIONS[self.member.precision]
        prompts = {name: p.to(dtype) for name, p in self.member.compartment.params.items()}
        network = as_uvit(backbone.network_in(self.member.precision), "this benchmark", "take another preset")
        predicted = plain_forward(network, prompts, x_t.to(dtype), t * backbone.time_scale).float()
        alpha, sigma = expand(backbone.schedule.alpha(t), x_t), expand(backbone.schedule.sigma(t), x_t)
        return to_x0(backbone.prediction, predicted, x_t, alpha, sigma)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("count", 512), ("steps", 20), ("tokens", 64), ("train-steps", 600)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    split = split_digits(digits(OWNERS))
    with tempfile.TemporaryDirectory() as folder:
        vault = Vault.create(Path(folder) / "bench.vault", backbone="uvit-tiny-8")
        for source in split.train:
            vault.add_source(source.name, source)
        settings = TrainSettings(adapter=DeepPrompts(tokens=options.tokens), steps=options.train_steps)
        vault.train(list(OWNERS), settings)
        judged = Digits.of(split.judge)
        network = fit_digit_network(
            judged, make_rejects(judged, letters(2000, size=8, seed=101).pixels(), count=3000, seed=1)
        )
        real = Digits.of(split.reference).images
        print(
            f"8 compartments, {options.tokens} prompt tokens, {options.count} images, {options.steps} steps, "
            f"{torch.get_num_threads()} threads"
        )
        for precision in ("float32", "auto"):
            compare(vault, options, precision, network, real)


def compare(vault: Vault, options: argparse.Namespace, precision: str, network: DigitNetwork, real: Tensor) -> None:
    ours = vault.compose(precision=precision)
    members = [member for member in ours.model.members if isinstance(member, CompartmentMember)]
    plain = replace(ours.model, members=[PlainMember(member) for member in members], routing=Full())
    full = replace(ours.model, routing=Full())
    seconds = {}
    for name, model in (("plain loop", plain), ("ours, full", full), ("ours, threshold", ours.model)):
        settings = SampleSettings(steps=options.steps, batch=128)
        _draw(model, vault, 32, settings)  # warm up
        begin = time.perf_counter()
        result = _draw(model, vault, options.count, settings)
        seconds[name] = time.perf_counter() - begin
        report = measure(result.images, real, network=network, metrics=("fd",), small=True)
        calls = result.calls.double().mean().item()
        print(
            f"  {members[0].precision:8} {name:16} {seconds[name]:7.2f} s  {calls:6.1f} calls per image  "
            f"{report.fd_name} {report['fd'].value}"
        )
    print(f"  ours over the plain loop: {seconds['plain loop'] / seconds['ours, threshold']:.2f}x")


def _draw(model: CompositeDenoiser, vault: Vault, count: int, settings: SampleSettings) -> Result:
    return sample(model, count, settings, decode=vault.backbone.decode)


if __name__ == "__main__":
    main()
