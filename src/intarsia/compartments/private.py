"""One step of differentially private training: Poisson sampling, clipping, noise (science.md section 6).

Abadi et al. 2016 (DP-SGD), with several draws of time and noise per image, averaged before clipping (Dockhorn et al.
2022), and a public normaliser: the expected number of images in a step, never the number that were drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.backbone.backbone import label_rows
from intarsia.backbone.pretrain import noised
from intarsia.backbone.uvit import Adaptation
from intarsia.compartments.accounting import Mechanism, Privacy
from intarsia.compartments.draws import draw_noise
from intarsia.compartments.per_sample import SampleGradients, sample_gradients
from intarsia.compartments.secret import Noise
from intarsia.compartments.text import TextPrompts

if TYPE_CHECKING:
    from intarsia.compartments.training import Trainee


@dataclass(frozen=True)
class PrivateSteps:
    """How a trainee comes to its gradients where they are private; `noise` decides who is drawn, and hides them."""

    privacy: Privacy
    mechanism: Mechanism
    noise: Noise = field(repr=False)

    # Abadi et al. 2016, algorithm 1
    def gradients(self, trainee: Trainee) -> tuple[dict[str, Tensor], float | None]:
        """(sum of the clipped gradients of the images that are drawn + noise) / expected number, by parameter; float32.

        Also without any image that is drawn. The mean loss beside it is of the images themselves, and for the eyes of
        whoever holds them; None without any.
        """
        number, clip = trainee.done, self.privacy.clip
        total = {name: torch.zeros_like(p) for name, p in trainee.params.items()}
        losses: list[float] = []
        for places in self._blocks(trainee):
            found, each = self.of_images(trainee, places)
            losses += each.tolist()
            for name, clipped in found.clipped_sum(clip).items():
                total[name] += clipped
        for name, summed in total.items():
            noise = self.noise.normal(summed.shape, "step", number, name)
            total[name] = (summed + self.mechanism.noise_multiplier * clip * noise) / self.mechanism.expected
        return total, sum(losses) / len(losses) if losses else None

    def drawn(self, step: int, count: int) -> list[int]:
        """The places, of `count`, that take part in a step: each with the same probability, independently."""
        u = self.noise.uniform(count, "drawn", step)
        return (u < self.mechanism.rate).nonzero()[0].tolist()

    def _blocks(self, trainee: Trainee) -> Iterator[Sequence[int]]:
        places = self.drawn(trainee.done, len(trainee.data.ids))
        for start in range(0, len(places), self.privacy.microbatch):
            yield places[start : start + self.privacy.microbatch]

    def of_images(self, trainee: Trainee, places: Sequence[int]) -> tuple[SampleGradients, Tensor]:
        """The gradients of single images in the trainee's next step, and their losses (B,)."""
        data, settings, draws = trainee.data, trainee.settings, self.privacy.draws
        reads = isinstance(settings.adapter, TextPrompts)
        rows = [k for k in places for _ in range(draws)]
        drawn = draw_noise([data.ids[k] for k in rows], settings.seed, trainee.done, data.latents.shape[1:])
        x_t, wanted = noised(
            data.latents[rows], drawn.t, drawn.eps, trainee.backbone.schedule, trainee.backbone.prediction
        )
        dropped = drawn.coin[::draws] < settings.label_dropout
        shown = [None if dropped[j] else k for j, k in enumerate(places)]
        labels = [None if k is None or reads else data.labels[k] for k in shown]
        captions = [None if k is None or not data.captions else data.captions[k] for k in shown]
        of_rows = [label for label in labels for _ in range(draws)]
        seen: list[Tensor] = []

        def losses(adaptation: Adaptation) -> Tensor:
            predicted = trainee.predicted(adaptation, x_t, drawn.t, of_rows)
            each = (predicted.float() - wanted).square().flatten(1).mean(dim=1)
            seen.append(each.detach().unflatten(0, (len(places), draws)).mean(dim=1))
            return each

        found = sample_gradients(
            settings.adapter,
            trainee.network,
            {name: p.to(trainee.dtype) for name, p in trainee.params.items()},
            losses,
            samples=len(places),
            sets=label_rows(data.classes, labels),
            captions=captions,
        )
        return found, seen[0]
