"""What a pipeline asks of its one denoiser, asked of all models that a composition puts in its place, or refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from diffusers import ModelMixin

from intarsia.errors import SettingsError
from intarsia.integrations.diffusers.arguments import Model
from intarsia.integrations.diffusers.members import AnyMember, LoraMember, WholeMember

# Asked of one model, these change how it runs; a composition passes them on to all its models.
EVERYWHERE = frozenset(
    {
        "disable_forward_chunking",
        "disable_freeu",
        "enable_forward_chunking",
        "enable_freeu",
        "set_attention_slice",
        "set_default_attn_processor",
    }
)
# The first would take layers away from under the members, or keep one member's activations for another; what the others
# add would belong to every member that shares the base, and to no other.
_CHANGES = "{} takes layers from under the members, or keeps one's answers for another; a composition does without it"
_FUSES = "{} changes layers that the members stand beside; do it before composing, or not"
_ADDS = (
    "{} would change every member that shares this pipeline's model, and no other; name a LoRA as a member, and load "
    "what all shall have before composing (LoRA followed by pipe.fuse_lora() and pipe.unload_lora_weights())"
)
REFUSED = MappingProxyType(
    dict.fromkeys(("enable_cache", "fuse_qkv_projections"), _CHANGES)
    | {"fuse_lora": _FUSES}
    | dict.fromkeys(("_load_ip_adapter_weights", "add_adapter", "load_attn_procs", "load_lora_adapter"), _ADDS)
)
# Whoever offloads or caches looks for its own hooks on a module, and takes away what it finds there.
HOOKS = frozenset({"_diffusers_hook", "_hf_hook", "_old_forward"})


class Everywhere(ModelMixin):  # type: ignore[misc] # diffusers is not followed by the type checker
    """A model that stands for several: `base`, and the whole models among `members`.

    Whatever else a pipeline asks of it (config, device, dtype, sizes) `base` answers.
    """

    base: Model
    members: Sequence[AnyMember]

    @property
    def models(self) -> list[Model]:
        """The shared model, and those of whole members in their order; each once, whoever it stands for."""
        found = [self.base, *(member.model for member in self._whole)]
        return list({id(model): model for model in found}.values())

    @property
    def attn_processors(self) -> dict[str, Any]:
        """The base's attention processors by their names, and those of whole members, named after whose they are.

        Pipelines set the scale of IP-adapters on them, and find blocks by how a name begins.
        """
        found = dict(self.base.attn_processors)
        for member in self._whole:
            found |= {_of(name, member): processor for name, processor in member.model.attn_processors.items()}
        return found

    def set_attn_processor(self, processor: Any, **more: Any) -> None:
        """One processor for all attention layers, or one for each name of `attn_processors`.

        Whole members whose processors are not named apart get the base's.
        """
        if not isinstance(processor, Mapping):
            for model in self.models:
                model.set_attn_processor(processor, **more)
            return
        names = list(self.base.attn_processors)
        # Their own mappings, as diffusers empties what it is given.
        self.base.set_attn_processor({name: processor[name] for name in names if name in processor}, **more)
        for member in self._whole:
            theirs = {name: processor.get(_of(name, member), processor.get(name)) for name in names}
            given = {name: each for name, each in theirs.items() if each is not None}
            member.model.set_attn_processor(given, **more)

    def enable_group_offload(self, *args: Any, **kwargs: Any) -> None:
        """As the base's own: block by block in every model. The members' LoRA is small, and stays where images are.

        On disk every model has a folder of its own, 0 (the base), 1 and so on.
        """
        asked = inspect.signature(self.base.enable_group_offload).bind(*args, **kwargs).arguments
        disk = asked.pop("offload_to_disk_path", None)
        for number, model in enumerate(self.models):
            place = {} if disk is None else {"offload_to_disk_path": str(Path(disk) / str(number))}
            model.enable_group_offload(**asked, **place)
        for member in self.members:
            if isinstance(member, LoraMember):
                member.to(asked["onload_device"])

    def enable_layerwise_casting(self, *args: Any, **kwargs: Any) -> None:
        """As the base's own, in every model; the members' LoRA is small, and stays in the precision it is in."""
        for model in self.models:
            model.enable_layerwise_casting(*args, **kwargs)

    def compile(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused.

        Raises:
            SettingsError: always; compiled layers do not hear the members.
        """
        raise SettingsError(
            "compiled layers do not tell members apart, so a composition runs as it is; whole models that are given as "
            "modules may be compiled, each by itself"
        )

    def compile_repeated_blocks(self, *args: Any, **kwargs: Any) -> NoReturn:
        """As `compile`."""
        self.compile()

    def enable_gradient_checkpointing(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused.

        Raises:
            SettingsError: always; what is computed again knows nothing of whose rows it is for.
        """
        raise SettingsError(
            "a composition draws, and is not trained; train each member on the pipeline's own model, apart"
        )

    @property
    def _whole(self) -> list[WholeMember]:
        return [member for member in self.members if isinstance(member, WholeMember)]

    def __setattr__(self, name: str, value: Any) -> None:
        """Kept here, but for what pipelines take away from their model with the IP-adapters."""
        if name != "encoder_hid_proj" or value is not None:
            super().__setattr__(name, value)
            return
        for model in self.models:
            model.encoder_hid_proj = model.config.encoder_hid_dim_type = None

    def __getattr__(self, name: str) -> Any:
        modules = self.__dict__.get("_modules", {})
        if name in modules or name in HOOKS or "base" not in modules:
            return super().__getattr__(name)
        if name in REFUSED:
            return partial(_refuse, REFUSED[name].format(name))
        if name in EVERYWHERE:
            return partial(_each, [getattr(model, name) for model in self.models])
        return getattr(modules["base"], name)


def _of(name: str, member: WholeMember) -> str:
    return f"{name} of {member.name}"


def _refuse(why: str, *args: Any, **kwargs: Any) -> NoReturn:
    raise SettingsError(why)


def _each(methods: Sequence[Callable[..., Any]], *args: Any, **kwargs: Any) -> None:
    for method in methods:
        method(*args, **kwargs)
