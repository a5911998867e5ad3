"""The drop-in denoiser: a module in the place of a pipeline's UNet or transformer that mixes its members' answers.

Rows of the weights sum to 1 and every prediction is affine in x0_hat, so eps, v and flow are mixed as they are (paper,
Proposition 3.1); the scheduler, guidance and callbacks see one model.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ModelMixin  # noqa: F401 # where from_pretrained looks for the kind of what it loads
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from intarsia.diffusion import expand
from intarsia.errors import CorruptError, SettingsError
from intarsia.integrations.diffusers.arguments import KINDS, Call, Model
from intarsia.integrations.diffusers.everywhere import Everywhere
from intarsia.integrations.diffusers.latents import space_of
from intarsia.integrations.diffusers.members import Adapter, AnyMember, Asked, LoraMember, WholeMember, chunks
from intarsia.integrations.diffusers.parts import check_alike
from intarsia.integrations.diffusers.plain import Attention, check_uncompiled
from intarsia.integrations.diffusers.reading import Reader, process_config
from intarsia.integrations.diffusers.run import Plan, Realised, Run
from intarsia.integrations.diffusers.saving import BASE, Composition, record_of


@dataclass
class ComposedOutput(BaseOutput):  # type: ignore[misc] # diffusers is not followed by the type checker
    """What models of diffusers answer: `sample` (B, ...)."""

    sample: Tensor


class ComposedModel(Everywhere):
    """A pipeline's denoiser made of members; made by `compose`.

    `base` is the shared model, `composition` says what stands beside it, `realised` what the last pipeline call did.
    """

    def __init__(self, base: Model, composition: Composition):
        super().__init__()
        members = composition.members
        assert tuple(member.name for member in members) == composition.plan.names
        self.base = base
        self.members: Sequence[AnyMember] = nn.ModuleList(members)  # type: ignore[assignment] # a list, typed loosely
        self.composition = composition
        self._adapter = Adapter(base, [member for member in members if isinstance(member, LoraMember)])
        self._attention = Attention(self.models)
        self._run: Run | None = None
        self._pipe: weakref.ref[Any] | None = None
        self._released = False

    @property
    def plan(self) -> Plan:
        return self.composition.plan

    @property
    def config(self) -> Any:
        return self.base.config

    @property
    def realised(self) -> Realised:
        """What the last pipeline call did.

        Raises:
            SettingsError: there was none.
        """
        if self._run is None:
            raise SettingsError("nothing was drawn with this composition yet; call the pipeline first")
        return self._run.realised

    def bind(self, pipe: Any) -> None:
        """Follow the scheduler of this pipeline: `compose` does it; a pipeline made `from_pipe` needs it again.

        Raises:
            IncompatibleError: its router parts were fitted in the latent space of another autoencoder than this one's.
        """
        if self.composition.parts:
            check_alike(self.composition.parts, space_of(pipe))
        self._pipe = weakref.ref(pipe)

    def release(self) -> nn.Module:
        """The shared model as it was; the composition is of no more use."""
        self._adapter.remove()
        self._released = True
        return self.base

    def __getstate__(self) -> dict[str, Any]:
        """A copy is bound to no pipeline, as the first one's scheduler is not its own, and has drawn nothing yet."""
        return {**self.__dict__, "_pipe": None, "_run": None}

    def save_pretrained(
        self, save_directory: str | Path, *, with_base: bool = True, variant: str | None = None
    ) -> None:
        """Save the composition, with the shared model in it or for one that is at hand when it is loaded.

        A pipeline's own `save_pretrained` comes here too.

        Raises:
            SettingsError: a composition or a part of one is there already, the routing has no name, or a variant is
                asked for, which a pipeline could not load again; nothing is written here then. A pipeline's own
                `save_pretrained` may have written other models by that time.
            VaultError: it cannot be written.
        """
        if variant is not None:
            raise SettingsError(
                f"a composition has no variant '{variant}', and a pipeline saved with one would not load; leave it "
                "out: weights are saved in the precision they are in"
            )
        folder, composition = Path(save_directory), dataclasses.replace(self.composition, members=self.members)
        composition.check_saving(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if with_base:
            self.base.save_pretrained(folder / BASE)
        pipe = None if self._pipe is None else self._pipe()
        composition.save(folder, self.base, {} if pipe is None else process_config(pipe.scheduler))

    @classmethod
    def from_pretrained(cls, place: str | Path, **loading: Any) -> ComposedModel:
        """A composition that was saved with its base; `bind` it to the pipeline it is for, or weights will ask for it.

        Args:
            loading: what a pipeline's `from_pretrained` hands to each of its models, and this one to its base.

        Raises:
            CorruptError: damaged, or saved without its base.
            SettingsError: a newer version of intarsia wrote it, or its weights are "clip", for which `load_composition`
                takes the model.
        """
        folder = Path(place)
        kind = record_of(folder)["base"].get("_class_name")
        if kind not in KINDS or not (folder / BASE).is_dir():
            raise CorruptError(
                f"{folder} was saved without its base model; load it into a pipeline: load_composition(pipe, folder)"
            )
        base = getattr(diffusers, kind).from_pretrained(folder / BASE, **loading)
        return cls(base, Composition.load(folder, Reader(None, base, "unet")))

    # torch.compile(composition) leaves it as it is: compiled layers do not hear the members.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *args: Any, **kwargs: Any) -> ComposedOutput | tuple[Tensor]:
        """The arguments and the answer of the model it stands for, which are its signature (so *args, **kwargs).

        Raises:
            SettingsError: attention across rows, weights that cannot be had here, or it was released.
            IncompatibleError: a scheduler, a size or evidence that the weights can do nothing with.
        """
        if self._released:
            raise SettingsError("this composition was released; give the pipeline the model that release() answered")
        self._attention.check()
        call = Call.of(self.base, args, kwargs)
        run = self._run_of(call)
        realised = run.weigh(call)
        answer, answers = self._mix(call, realised, run)
        run.heard(call, answer, answers, realised)
        return ComposedOutput(sample=answer) if call.arguments.get("return_dict", True) else (answer,)

    def _run_of(self, call: Call) -> Run:
        pipe = None if self._pipe is None else self._pipe()
        if pipe is None and self.plan.follows:
            what = (
                f"{self.plan.kind} weights follow" if self.plan.looks else f"routing '{self.plan.routing.name}' follows"
            )
            raise SettingsError(f"{what} a pipeline's scheduler, and this composition has none; call its bind(pipe)")
        scheduler = None if pipe is None else pipe.scheduler
        if self._run is None or not self._run.goes_on(scheduler, call):
            self._run = None  # what fails from here on leaves no run behind
            if self._adapter.layers:
                check_uncompiled(self.base, "the model that this composition's members share")
            self._run = Run(self.plan, scheduler, call)
        return self._run

    # paper eq. 5, Proposition 3.1: sum_i w_i eps_i; a member is called only for the rows where its weight is not 0
    def _mix(self, call: Call, realised: Tensor, run: Run) -> tuple[Tensor, list[Tensor]]:
        """The mixture (B, ...), and if the run follows the path the members' own answers (B, ...)."""
        asked = [
            Asked(member, rows)
            for member, column in zip(self.members, realised.unbind(1), strict=True)
            if len(rows := column.nonzero()[:, 0])
        ]
        numbers = {name: i for i, name in enumerate(self.plan.names)}
        mixed: Tensor | None = None
        answers: list[Tensor] = []
        for group in chunks(asked, self.composition.most_rows):
            for one, answer in zip(group, self._answers(call, group), strict=True):
                if mixed is None:
                    mixed = torch.zeros((call.rows, *answer.shape[1:]), dtype=torch.float32, device=answer.device)
                    answers = [mixed.clone() for _ in self.members] if run.follows_path else []
                i, rows = numbers[one.member.name], one.rows.to(answer.device)
                weights = realised[one.rows, i].to(mixed)
                mixed.index_add_(0, rows, expand(weights, mixed) * answer.to(mixed.dtype))
                if answers:
                    answers[i][rows] = answer.to(mixed.dtype)
                run.realised.count(one.rows, call.rows)
        assert mixed is not None
        return mixed.to(call.x_t.dtype), answers

    def _answers(self, call: Call, group: Sequence[Asked]) -> Sequence[Tensor]:
        """Each member's answers for its rows, in one call of one model."""
        rows = torch.cat([one.rows for one in group])
        first = group[0].member
        if isinstance(first, WholeMember):
            return [first.model(**call.of_rows(rows))[0]]
        groups = [(one.member, len(one.rows)) for one in group if isinstance(one.member, LoraMember)]
        with self._adapter.serving(groups, call.scale):
            return self.base(**call.of_rows(rows))[0].split([count for _, count in groups])
