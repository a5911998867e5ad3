"""Compartments joined on a vault's backbone: what draws images, and what says whom they are owed to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from intarsia.backbone import Backbone, Prompt
from intarsia.compartments import Compartment
from intarsia.composition import (
    UNLIMITED,
    BackboneMember,
    CompartmentMember,
    CompositeDenoiser,
    Operator,
    Result,
    SampleSettings,
)
from intarsia.composition.member import Conditions, Labels
from intarsia.composition.sampling import Drive, OnProgress, OnStep, one_by_one
from intarsia.credit import Credit, CreditSettings, Drawing, credit, path_profile, sample_as
from intarsia.errors import SettingsError
from intarsia.ledger import Receipt
from intarsia.routers import (
    CaptionBank,
)
from intarsia.vault.captions import read_caption_part, read_prompts


@dataclass(frozen=True)
class Composition:
    """Compartments joined: `model` is a denoiser like any other, `sample` draws from it.

    `operator` says what is drawn: their mixture, or images that are protected. `licences` are those of all sources that
    the members saw, by source. `isolated` says whether every source's part of
    the weights saw that source and public data only. `record` tells the ledger what was drawn, and gives its receipt.
    `left_out` says why a source is not there, by source, where all were asked for.
    """

    model: CompositeDenoiser
    backbone: Backbone
    licences: Mapping[str, str]
    record: Callable[[Result], Receipt | None] | None = None
    operator: Operator = UNLIMITED
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return self.model.names

    def check(self) -> None:
        """Whether the members may still be used; every step asks, and so may whoever keeps what was drawn.

        Raises:
            ForbiddenError: a source was forgotten, retrained or revoked since.
        """
        if self.model.guard is not None:
            self.model.guard.check()

    @property
    def isolated(self) -> bool:
        return self.model.weights.isolated

    def sample(  # noqa: PLR0913 - one keyword per setting keeps the commonest call short
        self,
        count: int,
        *,
        seed: int = 0,
        steps: int = 50,
        sampler: str = "ddpm",
        spacing: str = "uniform",
        eta: float = 0.0,
        labels: Labels | None = None,
        prompt: str | Sequence[str] | None = None,
        guidance_scale: float = 1.0,
        batch: int = 64,
        batch_invariant: bool = False,
        analytic_start: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Result:
        """Draw images; image k depends on (seed, k) alone, up to rounding, and exactly with `batch_invariant`.

        Args:
            spacing: of the steps in time, `uniform` or `log_snr`.
            eta: share of fresh noise of `ddim`, from 0 (none) to 1 (that of `ddpm`).
            labels: one label or None per image.
            prompt: what to draw, in words: for all images, or one for each.
            guidance_scale: 1 means none; above it every image needs a label or a prompt.
            analytic_start: nats per image that closed forms at noisy steps may cost; None calls the networks always.

        Raises:
            SettingsError: a number that makes no sense, labels or prompts of another length, guidance without any, or
                a source that cannot be asked in words; a sampler or guidance that the operator does not allow, or an
                image without a candidate within its limit.
            InputError: a prompt is empty, or longer than its encoder takes.
            UnknownName: no such sampler or spacing, or a label that no source has.
            ForbiddenError: a source was forgotten or retrained since, or revoked from the principal, also while the
                images are drawn; or a quota does not leave so many.
            VaultError, CorruptError: what was drawn cannot be recorded; then it is not handed out.
        """
        settings = SampleSettings(
            seed=seed,
            steps=steps,
            sampler=sampler,
            spacing=spacing,
            eta=eta,
            guidance_scale=guidance_scale,
            batch=batch,
            batch_invariant=batch_invariant,
            analytic_start=analytic_start,
        )
        return self.draw(count, settings, labels=labels, prompt=prompt, on_progress=on_progress)

    def draw(
        self,
        count: int,
        settings: SampleSettings,
        *,
        labels: Labels | None = None,
        prompt: str | Sequence[str] | None = None,
        text_encoder: str | None = None,
        prompt_weights: bool = False,
        on_progress: OnProgress | None = None,
        on_step: OnStep | None = None,
        drive: Drive = one_by_one,
    ) -> Result:
        """As `sample`, with settings that are made already. What was drawn is recorded before it is handed out.

        Args:
            text_encoder: folder or hub id of the encoder that reads the prompt, if it is not where it was in training.
            prompt_weights: whether the weights take into account how likely the prompt is under each source's captions,
                for which all members need the router part `caption`.
            on_step: called after each step of a mixture, with the estimates and weights of that moment.
            drive: how the batches of a mixture are carried to their end, such as by the engine of a service.

        Raises:
            As `sample`; and VaultError or CorruptError if it cannot be recorded.
        """
        asked: Conditions | None = labels
        if text_encoder is not None and prompt is None:
            raise SettingsError("text_encoder reads a prompt, and there is none; give one, or leave it out")
        if prompt is not None:
            if labels is not None:
                raise SettingsError("labels and a prompt were both given; ask for one of the two")
            asked = self.prompts([prompt] * count if isinstance(prompt, str) else prompt, text_encoder=text_encoder)
        model = self.model
        if prompt_weights:
            if prompt is None:
                raise SettingsError("prompt_weights weigh sources by a prompt; give one, or leave them out")
            if self.operator.protects or not self.compartments:
                what = "the protected operator weighs nobody" if self.operator.protects else "a soup has no captions"
                raise SettingsError(f"prompt_weights weigh sources by a prompt, and {what}; leave them out")
            model = replace(model, told=CaptionBank([read_caption_part(each) for each in self.compartments]))
        drawing = Drawing(
            model,
            settings,
            self.operator,
            self.backbone.decode,
            on_progress=on_progress,
            on_step=on_step,
            drive=drive,
        )
        result = sample_as(drawing, count, labels=asked)
        self.check()
        receipt = self.record(result) if self.record is not None else None
        return result if receipt is None else replace(result, receipt=receipt.document())

    @property
    def reads(self) -> bool:
        """Whether all of it is asked in words."""
        return self.backbone.text is not None or all(map(_reads, self.model.members))

    @property
    def partly_reads(self) -> bool:
        """Whether some of it is asked in words."""
        return self.backbone.text is not None or any(map(_reads, self.model.members))

    def prompts(self, texts: Sequence[str], *, text_encoder: str | None = None) -> list[Prompt]:
        """What its members take in the place of labels when they are asked in words.

        Raises:
            As `read_prompts`; and SettingsError if one of them is no text.
        """
        listed = isinstance(texts, Sequence) and not isinstance(texts, str | bytes)
        if not listed or not all(isinstance(text, str) for text in texts):
            raise SettingsError(f"the prompt is {texts!r}, expected a text, or a list of texts, one for every image")
        return read_prompts(texts, self.compartments, self.backbone, encoder=text_encoder)

    @property
    def compartments(self) -> list[Compartment]:
        """The compartments of its members, in their order."""
        return [member.compartment for member in self.model.members if isinstance(member, CompartmentMember)]

    def credit(
        self,
        images: Tensor | Result,
        settings: CreditSettings | None = None,
        *,
        on_progress: OnProgress | None = None,
    ) -> Credit:
        """How much each source is owed for images, with intervals; `docs/credit.md` says what that means.

        Args:
            images: (N, C, H, W) in [-1, 1], of any origin; or what `sample` gave.
            on_progress: called with the estimates of images that are done, and those there are in all.

        Raises:
            ForbiddenError: a member may not be used any more, also since this began.
            IncompatibleError: images of another shape than the backbone's.
            SettingsError, InputError: a method that cannot be had here.
        """
        self.check()
        if settings is not None and settings.method == "path" and isinstance(images, Result):
            return path_profile(images)
        latents = images.latents if isinstance(images, Result) else self.backbone.encode(images)
        members = [each for each in self.model.members if isinstance(each, CompartmentMember)]
        if not members:
            raise SettingsError("networks that were averaged into one cannot say whose an image is; take other weights")
        core = BackboneMember(self.backbone, 1, precision=members[0].precision)
        found = credit(self.model, latents, settings, core=core, on_progress=on_progress)
        self.check()
        return found


def _reads(member: object) -> bool:
    return isinstance(member, CompartmentMember) and member.reads
