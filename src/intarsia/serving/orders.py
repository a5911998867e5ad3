"""From a request to images: what is asked for, checked against what the caller may have, and drawn by the engine."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from intarsia.checks import check_whole
from intarsia.composition import CompositeRun, Result, SampleSettings
from intarsia.composition.member import Conditions
from intarsia.composition.sampling import OnStep
from intarsia.data import to_uint8
from intarsia.errors import SettingsError, UnknownName
from intarsia.serving.callers import Caller
from intarsia.serving.choices import composed
from intarsia.serving.faults import Fault
from intarsia.serving.pictures import as_field, encoded
from intarsia.serving.provenance import Seal
from intarsia.serving.schemas import BEST, ImageRequest
from intarsia.serving.service import Service
from intarsia.serving.settings import SERVED_WEIGHTS
from intarsia.vault import Composition

MODEL = "intarsia"
_MOST_SHOWN = 50  # steps of the weights that are told
SEEDS = 2**31


@dataclass(frozen=True)
class Order:
    """What is to be drawn, and how it is handed out."""

    request: ImageRequest
    composition: Composition
    settings: SampleSettings
    labels: Sequence[str] | None
    prompt: str | None
    mixing: tuple[str, str]
    principal: str | None

    @classmethod
    def of(cls, service: Service, caller: Caller, request: ImageRequest) -> Order:
        """Check a request and compose what it may have: by the key and by `sources`, whatever else it says.

        Raises:
            Fault, SettingsError, UnknownName: it makes no sense here.
            ForbiddenError: the caller may not use a source that was named, or may use none.
        """
        given, limits = request, service.settings
        if given.model != MODEL:
            raise Fault(404, f"no model '{given.model}' here; the one there is is '{MODEL}'", code="model_not_found")
        check_size(given.size, service.vault.image_shape)
        check_form(given)
        check_whole("n", given.n, most=limits.images)
        check_whole("num_inference_steps", given.num_inference_steps or limits.steps, most=limits.max_steps)
        weights, routing = mixing(service, given.weights, given.routing)
        settings = SampleSettings(
            seed=secrets.randbelow(SEEDS) if given.seed is None else given.seed,
            steps=given.num_inference_steps or limits.steps,
            sampler=given.sampler,
            guidance_scale=given.guidance_scale,
            batch=given.n,
            batch_invariant=limits.batch_invariant,
        )
        composition = composed(
            service, caller, given.sources, weights=weights, routing=routing, precision=limits.precision
        )
        label, prompt = _asked(given, composition)
        check_motif(composition, label, prompt, settings.guidance_scale)
        labels = None if label is None else [label] * given.n
        return cls(given, composition, settings, labels, prompt, (weights, routing), caller.principal)

    def draw(self, service: Service, *, gone: threading.Event, on_step: OnStep | None = None) -> Answer:
        """Have it drawn, record it and encode it; waits until that is done.

        Raises:
            ForbiddenError: a source was taken away meanwhile, or a quota does not leave so many images.
            Busy, Abandoned: as `Engine.drive`.
        """
        drive = partial(service.engine.drive, gone=gone)
        result = self.composition.draw(
            self.request.n, self.settings, labels=self.labels, prompt=self.prompt, on_step=on_step, drive=drive
        )
        service.metrics.images.inc(self.request.n)
        receipt = service.receipts.keep(result, self.principal)
        return Answer.of(self, result, receipt, service.settings.seal)


@dataclass(frozen=True)
class Answer:
    """What was drawn, as a client gets it: a field with the file of each image, and what is to say about them."""

    created: int
    files: list[dict[str, str]]
    size: str
    output_format: str
    about: dict[str, Any]
    weights: list[list[list[float]]]
    times: list[float]

    @classmethod
    def of(cls, order: Order, result: Result, receipt: str | None, seal: Seal | None) -> Answer:
        form, quality = order.request.output_format, order.request.output_compression
        about = {"receipt": receipt} | _about(order, result)
        said = {name: about[name] for name in ("sources", "settings", "licences")} | {"receipt": result.receipt}
        files = []
        for k, image in enumerate(to_uint8(result.images)):
            file = encoded(image, form, quality, said | {"image": k})
            if seal is not None:
                file = seal.signed(file, form, said | {"image": k, "receipt": receipt})
            files.append(as_field(file, form, order.request.response_format))
        kept = torch.linspace(0, len(result.times) - 1, min(_MOST_SHOWN, len(result.times))).round().long()
        weights = result.weights[kept].transpose(0, 1).double().tolist()
        height, width = result.images.shape[-2:]
        times = result.times[kept].tolist()
        return cls(int(time.time()), files, f"{width}x{height}", form, about, weights, times)

    def document(self) -> dict[str, Any]:
        """All images."""
        own = self.about | {"weights": {"steps": self.times, "values": self.weights}}
        head = {"created": self.created, "size": self.size, "output_format": self.output_format}
        return head | {"data": self.files, "intarsia": own}

    def document_of(self, index: int) -> dict[str, Any]:
        """One image, as an event tells of it."""
        own = self.about | {"weights": {"steps": self.times, "values": self.weights[index]}}
        own["calls"] = self.about["calls"][index]
        head = {"index": index, "created_at": self.created, "size": self.size, "output_format": self.output_format}
        return head | self.files[index] | {"intarsia": own}


def mixing(service: Service, weights: str | None, routing: str | None) -> tuple[str, str]:
    """Weights and routing as they were asked for, or as the service does without.

    Raises:
        UnknownName: weights that are not served.
    """
    chosen = weights or service.settings.weights
    if chosen not in SERVED_WEIGHTS:
        raise UnknownName("weights", chosen, SERVED_WEIGHTS)
    return chosen, routing or service.settings.routing


def check_size(size: str, image_shape: Sequence[int]) -> None:
    """Raises SettingsError unless a vault's images are of that size."""
    own = f"{image_shape[2]}x{image_shape[1]}"
    if size not in ("auto", own):
        raise SettingsError(f"size is '{size}', this vault draws images of {own}; ask for that, or leave it out")


def check_form(given: ImageRequest) -> None:
    """Raises SettingsError if something is said of the files that nobody could keep to."""
    if given.partial_images and not given.stream:
        raise SettingsError(f"partial_images is {given.partial_images}, which takes 'stream'; leave it out, or stream")
    if given.output_format == "png" and given.output_compression != BEST:
        raise SettingsError(
            f"output_compression is {given.output_compression}, and a PNG loses nothing; leave it out, or take jpeg"
        )


def check_motif(composition: Composition, label: str | None, prompt: str | None, guidance_scale: float) -> None:
    """Refuse before anything is drawn what the members cannot be asked for.

    Raises:
        SettingsError, UnknownName, InputError: as `Composition.draw`.
    """
    asked: Conditions = [label] if prompt is None else composition.prompts([prompt])
    composition.model.run([0], labels=asked, guidance_scale=guidance_scale)


def _asked(given: ImageRequest, composition: Composition) -> tuple[str | None, str | None]:
    """The label or the prompt. Where no text is read a prompt is a label: it never says from which sources to draw.

    Networks that were averaged into one read what their backbone reads.
    """
    prompt = given.prompt.strip()
    if given.label is not None and prompt and prompt != given.label:
        raise SettingsError(f"the prompt is '{prompt}' and the label '{given.label}'; give one of them")
    if given.label is not None or not prompt:
        return given.label, None
    # Where but some of them read, those that do not are named: those that do are asked for no label.
    in_words = composition.reads or composition.partly_reads
    return (None, prompt) if in_words else (prompt, None)


def _about(order: Order, result: Result) -> dict[str, Any]:
    """What is told of images, and what could not be taken; nothing of sources that were not granted."""
    settings = {name: value for name, value in asdict(result.settings).items() if name != "batch"}
    settings |= {
        "weights": order.mixing[0],
        "routing": order.mixing[1],
        "label": result.labels[0],
        "prompt": order.prompt,
    }
    return {
        "sources": list(result.names),
        "left_out": dict(order.composition.left_out),
        "licences": dict(order.composition.licences),
        "prior": dict(zip(result.names, result.prior.tolist(), strict=True)),
        "shares": dict(zip(result.names, result.shares.tolist(), strict=True)),
        "calls": result.calls.tolist(),
        "settings": settings,
    }


def previews(count: int, steps: int, tell: Callable[[int, int, CompositeRun, torch.Tensor], None]) -> OnStep:
    """What calls `tell` with (number, step, run, x0_hat) at `count` steps, evenly spread and before the last one."""
    wanted = sorted({round((k + 1) * steps / (count + 1)) - 1 for k in range(count)} - {-1, steps - 1})
    number = {step: k for k, step in enumerate(wanted)}

    def look(step: int, x0_hat: torch.Tensor, run: CompositeRun) -> None:
        if step in number:
            tell(number[step], step, run, x0_hat)

    return look
