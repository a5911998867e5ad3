"""Training of compartments: isolated, deterministic to the byte, resumable, sliced (science.md section 4).

A compartment's next parameters are a function of its own samples, the frozen backbone and the step number. Several may
train side by side: each step runs one block of fixed shape per compartment, so that no product ever has rows of two
sources and the bytes are those of training alone, whatever the partners. (On a CPU one large product is no faster than
the blocks in turn.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from intarsia.backbone.backbone import Backbone, label_rows
from intarsia.backbone.optimizer import trapezoid
from intarsia.backbone.precision import PRECISIONS, resolve_precision
from intarsia.backbone.pretrain import noised
from intarsia.backbone.text import Prompt
from intarsia.backbone.uvit import Adaptation
from intarsia.checks import check_whole
from intarsia.compartments.adapters import FullCopy
from intarsia.compartments.draws import Words, draw_noise, draw_rows, sample_keys
from intarsia.compartments.pieces import Adapted
from intarsia.compartments.private import PrivateSteps
from intarsia.compartments.settings import TrainSettings
from intarsia.compartments.slices import Extension, Slicing
from intarsia.compartments.text import TextPrompts
from intarsia.errors import CorruptError, SettingsError
from intarsia.files import load_sealed, sealed_to_bytes, write_atomic

Keep = Callable[[str, bytes], None]
"""Who keeps the checkpoints of a training that has no folder here: called with the name and the bytes of each."""

Shown = Sequence[str | Prompt | None]
"""What the network is told that each image shows: a label, a caption, or nothing."""


@dataclass(frozen=True)
class TrainStep:
    """One finished step of one compartment; `loss` is None when no sample's slice was open yet."""

    name: str
    step: int
    steps: int
    loss: float | None


@dataclass(frozen=True)
class TrainData:
    """What one source gives its compartment: latents (N, *latent_shape) with ids and labels in the same order.

    `batches` says with which extension each sample came (none: all with the base), `risky` which are likely to leave.
    `captions` are read by the adapter that takes them, and by a network that reads text.
    """

    name: str
    latents: Tensor
    ids: Sequence[str]
    labels: Sequence[str | None]
    batches: Sequence[int] = ()
    risky: Sequence[bool] = ()
    captions: Sequence[Prompt | None] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({label for label in self.labels if label is not None}))


@contextlib.contextmanager
def deterministic(threads: int | None = None) -> Iterator[int]:
    """Only deterministic kernels and a fixed number of threads; yields that number and restores both afterwards."""
    # The debug mode is the same switch as use_deterministic_algorithms, which imports torch's compiler for seconds.
    before, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    used = before if threads is None else threads
    torch.set_deterministic_debug_mode("error")
    torch.set_num_threads(used)
    try:
        yield used
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(before)


class Trainee:
    """One compartment in training: parameters, their average, Adam's moments and the number of steps done."""

    def __init__(
        self,
        backbone: Backbone,
        data: TrainData,
        settings: TrainSettings,
        folder: Path | None = None,
        *,
        extensions: Sequence[Extension] = (),
        private: PrivateSteps | None = None,
        keep: Keep | None = None,
    ):
        if (settings.privacy is None) != (private is None):
            raise SettingsError("what is to be trained privately needs PrivateSteps, and nothing else does")
        settings = settings.on(backbone.network)
        self.backbone, self.data, self.settings, self.folder = backbone, data, settings, folder
        self.private, self._keep = private, keep
        self.dtype = PRECISIONS[resolve_precision(settings.precision)]
        self.network = backbone.network_in(resolve_precision(settings.precision))
        self.params = settings.adapter.initial(backbone.network, classes=len(data.classes), seed=settings.seed)
        self.average = {name: p.clone() for name, p in self.params.items()}
        self._optimiser = torch.optim.Adam(list(self.params.values()), lr=settings.first_lr)
        self.done = 0
        self.slicing = Slicing(settings.steps, settings.slices, tuple(extensions))
        joins = self.slicing.of_all(data.ids, data.batches, data.risky)
        self._pools = [self._pool(joins, part) for part in range(self.slicing.count)]

    def _pool(self, joins: Sequence[int], part: int) -> tuple[list[int], Words]:
        """Places and keys of the samples that are open in slice `part`: those of this slice and all before it."""
        open_ = [k for k, joined in enumerate(joins) if joined <= part]
        return open_, sample_keys([self.data.ids[k] for k in open_], self.settings.seed)

    def step(self) -> TrainStep:
        """One Adam step on the rows drawn for it; checkpoints at the end of each slice.

        Raises:
            SettingsError: the loss or the parameters are not finite any more; what was saved before stays.
        """
        places, keys = self._pools[self.done // self.slicing.per_slice]
        loss = self._update(places, keys) if places else None
        self.done += 1
        if self.done % self.slicing.per_slice == 0:
            self.save(f"slice-{self.done // self.slicing.per_slice}")
        return TrainStep(self.data.name, self.done, self.slicing.total, loss)

    def _update(self, places: list[int], keys: Words) -> float | None:
        number, settings = self.done, self.settings
        gradients, loss = self.private.gradients(self) if self.private else self._gradients(places, keys)
        for name, p in self.params.items():
            p.grad = gradients[name]
        first, steps = self.slicing.stage_of(number)
        factor = trapezoid(number - first, steps, warmup=settings.warmup, cooldown=settings.cooldown)
        self._optimiser.param_groups[0]["lr"] = settings.first_lr * factor
        self._optimiser.step()
        decay = min(settings.ema, (1 + number) / (10 + number))
        torch._foreach_lerp_(list(self.average.values()), list(self.params.values()), 1 - decay)
        return loss

    def _gradients(self, places: list[int], keys: Words) -> tuple[dict[str, Tensor], float]:
        """Of the mean loss of the rows that are drawn, by parameter, float32; and that loss."""
        settings, number = self.settings, self.done
        chosen = [places[k] for k in draw_rows(keys, number, settings.rows)]
        draws = draw_noise([self.data.ids[k] for k in chosen], settings.seed, number, self.data.latents.shape[1:])
        x_t, wanted = noised(
            self.data.latents[chosen], draws.t, draws.eps, self.backbone.schedule, self.backbone.prediction
        )
        shown = [None if draws.coin[j] < settings.label_dropout else k for j, k in enumerate(chosen)]
        working = {name: p.to(self.dtype).requires_grad_() for name, p in self.params.items()}
        total: dict[str, Tensor] = {}
        losses = 0.0
        for rows in torch.arange(len(chosen)).split(settings.at_once or len(chosen)):
            predicted = self._forward(working, x_t[rows], draws.t[rows], [shown[k] for k in rows.tolist()])
            loss = (predicted.float() - wanted[rows]).square().mean() * (len(rows) / len(chosen))
            if not bool(loss.isfinite()):
                raise self._broken_down(f"a loss of {loss.item()}")
            found = torch.autograd.grad(loss, list(working.values()), allow_unused=True, materialize_grads=True)
            for name, gradient in zip(working, found, strict=True):
                total[name] = total[name] + gradient.float() if name in total else gradient.float()
            losses += loss.item()
        return total, losses

    def _broken_down(self, found: str) -> SettingsError:
        """The error for a training that diverged."""
        return SettingsError(
            f"training '{self.data.name}' broke down at step {self.done} of {self.slicing.total}, with {found}; the "
            f"learning rate {self.settings.first_lr} is probably too high: train it afresh with a lower one"
        )

    def _forward(self, params: dict[str, Tensor], x_t: Tensor, t: Tensor, shown: Sequence[int | None]) -> Tensor:
        """The network's prediction, told the label or the caption of the samples in `shown`, and nothing for None."""
        adapter, data = self.settings.adapter, self.data
        captions = [None if k is None or not data.captions else data.captions[k] for k in shown]
        if isinstance(adapter, TextPrompts):
            pieces = adapter.captioned(self.network, params, adapter.pieces(self.network, params), captions)
            return self.predicted(Adapted([(pieces, len(x_t))]), x_t, t, [None] * len(x_t))
        labels = [None if k is None else data.labels[k] for k in shown]
        told: Shown = labels if self.backbone.text is None else captions
        if isinstance(adapter, FullCopy):
            return torch.func.functional_call(self.network, params, self._arguments(x_t, t, told))
        pieces = adapter.pieces(self.network, params).of_rows(label_rows(self.data.classes, labels))
        return self.predicted(Adapted([(pieces, len(x_t))]), x_t, t, told)

    def predicted(self, adaptation: Adaptation, x_t: Tensor, t: Tensor, shown: Shown) -> Tensor:
        """What the network says of x_t (B, ...) at t (B,), told of these labels or captions, under an adaptation."""
        answer: Tensor = self.network(*self._arguments(x_t, t, shown), adaptation=adaptation)
        return answer

    def _arguments(self, x_t: Tensor, t: Tensor, shown: Shown) -> tuple[Tensor, Tensor, Tensor | None]:
        return x_t.to(self.dtype), t * self.backbone.time_scale, self.backbone.context(shown)

    def save(self, name: str = "state") -> None:
        """Write all that the next step depends on.

        Raises:
            SettingsError: the parameters are not finite; the checkpoint before this one stays.
        """
        if not all(bool(p.isfinite().all()) for p in (*self.params.values(), *self.average.values())):
            raise self._broken_down("parameters that are not finite")
        if self._keep is not None:
            self._keep(name, sealed_to_bytes(self.state()))
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.folder / f"{name}.safetensors", sealed_to_bytes(self.state()))

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name; `restore` reads it back from a checkpoint."""
        tensors = {f"params.{key}": p for key, p in self.params.items()} | {"done": torch.tensor(self.done)}
        tensors |= {f"average.{key}": p for key, p in self.average.items()}
        for key, state in zip(self.params, self._optimiser.state_dict()["state"].values(), strict=False):
            tensors |= {f"adam.{key}.{moment}": torch.as_tensor(value) for moment, value in state.items()}
        return tensors

    def restore(self, name: str = "state") -> bool:
        """Go on from a checkpoint, if it is there; its digest is checked first.

        Raises:
            CorruptError: it is damaged, or not a checkpoint of this compartment.
        """
        path = None if self.folder is None else self.folder / f"{name}.safetensors"
        if path is None or not path.exists():
            return False
        self.stand_at(load_sealed(path), path)
        return True

    def stand_at(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        """Go on from what `state` gave, which `path` kept.

        Raises:
            CorruptError: it is not of this compartment.
        """
        state: dict[int, dict[str, Tensor]] = {}
        try:
            for index, key in enumerate(self.params):
                self.params[key].copy_(tensors[f"params.{key}"])
                self.average[key].copy_(tensors[f"average.{key}"])
                moments = {
                    m: tensors[f"adam.{key}.{m}"]
                    for m in ("step", "exp_avg", "exp_avg_sq")
                    if f"adam.{key}.{m}" in tensors
                }
                state |= {index: moments} if moments else {}
            self.done = int(tensors["done"])
        except (KeyError, RuntimeError) as error:
            raise CorruptError(
                f"{path}: not a checkpoint of this compartment ({error}); remove it to train afresh"
            ) from error
        self._optimiser.load_state_dict(self._optimiser.state_dict() | {"state": state})


def train(trainees: Sequence[Trainee], *, save_every: int = 100) -> Iterator[TrainStep]:
    """Train to the end, one step of each in turn, from wherever each stands.

    The bytes that come out do not depend on who trains beside whom, nor on interruptions. Checkpoints ("state") are
    written every `save_every` steps into each trainee's folder, if it has one.

    Raises:
        SettingsError: a name twice, different numbers of threads, or `save_every` below 1.
    """
    check_whole("save_every", save_every)
    names = [trainee.data.name for trainee in trainees]
    if len(set(names)) < len(names):
        raise SettingsError(f"to be trained: {', '.join(names)}; name each source once")
    threads = {trainee.settings.threads for trainee in trainees}
    if len(threads) > 1:
        raise SettingsError(
            f"compartments that train together must use one number of threads, found {sorted(map(str, threads))}"
        )
    waiting = [trainee for trainee in trainees if trainee.done < trainee.slicing.total]
    while waiting:
        for trainee in waiting:
            with deterministic(trainee.settings.threads):
                step = trainee.step()
                if trainee.done % save_every == 0 or trainee.done == trainee.slicing.total:
                    trainee.save()
            yield step
        waiting = [trainee for trainee in waiting if trainee.done < trainee.slicing.total]
