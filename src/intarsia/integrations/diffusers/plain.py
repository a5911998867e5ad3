"""What the models of a composition must be: their own layers in the open, no memory, every row for itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from diffusers.models.attention import AttentionModuleMixin
from torch import nn
from torch._dynamo import OptimizedModule

from intarsia.errors import SettingsError

# In what diffusers calls its processors: perturbed attention guidance and self-attention guidance find the branches of
# an image by their places in the batch, text to video its frames.
TOGETHER = ("PAG", "CrossFrame", "Store")


def check_plain(model: nn.Module, component: str) -> None:
    """Refuse a model whose layers are not what the members would stand beside.

    Raises:
        SettingsError: it is compiled, LoRA is loaded into it, its projections are fused, or it is cached, offloaded or
            attends across rows.
    """
    modules: list[Any] = list(model.modules())
    check_uncompiled(model, f"this pipeline's {component}")
    if any(hasattr(module, "base_layer") for module in modules):
        raise SettingsError(
            f"this pipeline's {component} has LoRA loaded into it, which would belong to every member; call "
            "pipe.unload_lora_weights() first, and pipe.fuse_lora() before that if it is meant for all of them"
        )
    if any(map(_is_fused, modules)):
        raise SettingsError(
            f"this pipeline's {component} has fused projections, past which a member's changes of q, k and v would go "
            f"unheard; call pipe.{component}.unfuse_qkv_projections() first"
        )
    if any(hasattr(module, "_hf_hook") for module in modules):
        raise SettingsError(
            f"this pipeline's {component} is offloaded or spread over devices, by hooks that would not see the "
            "composition; call pipe.remove_all_hooks(), compose first, then enable offloading"
        )
    check_uncached(model, f"this pipeline's {component}")
    for module in modules:
        if hasattr(module, "get_processor"):
            _check_by_row(module.get_processor())


def check_uncompiled(model: nn.Module, what: str) -> None:
    """Raises SettingsError for a model of which anything is compiled.

    Compiled code does not ask which hooks a layer has: layers of one kind share it, and members go unheard.
    """
    modules: Iterator[Any] = model.modules()
    if any(isinstance(module, OptimizedModule) or module._compiled_call_impl is not None for module in modules):
        raise SettingsError(
            f"{what} is compiled, and compiled layers do not hear the members; load it again and leave it as it is"
        )


def check_uncached(model: nn.Module, what: str) -> None:
    """Raises SettingsError for a model that keeps activations from call to call."""
    if getattr(model, "is_cache_enabled", False) or any(map(_remembers, model.modules())):
        raise SettingsError(
            f"{what} has a cache, which cannot tell members apart, nor their rows; call its disable_cache() first"
        )


class Attention:
    """The attention layers of a composition's models, whose processors a pipeline may change in the midst of a call."""

    def __init__(self, models: Sequence[nn.Module]):
        self._layers: list[Any] = [
            module for model in models for module in model.modules() if hasattr(module, "get_processor")
        ]
        self._processors = self._found()

    def check(self) -> None:
        """Refuse processors that relate rows; those of the call before are put back, as the pipeline cannot any more.

        Raises:
            SettingsError: names the first.
        """
        found = self._found()
        try:
            for processor in found:
                _check_by_row(processor)
        except SettingsError:
            for layer, processor in zip(self._layers, self._processors, strict=True):
                layer.set_processor(processor)
            raise
        self._processors = found

    def _found(self) -> list[Any]:
        return [layer.get_processor() for layer in self._layers]


def _check_by_row(processor: Any) -> None:
    kind = type(processor)
    # What a pipeline brings along itself is made for the batches of that pipeline.
    if any(word in kind.__name__ for word in TOGETHER) or kind.__module__.startswith("diffusers.pipelines."):
        raise SettingsError(
            f"the attention processor {kind.__name__} relates the rows of a batch to each other, and members are asked "
            "for rows apart; use a pipeline that does without it, and the model's own attention processors"
        )


def _is_fused(module: Any) -> bool:
    """Whether an attention layer asks the fused projections; where only the processor decides, a flag stays behind."""
    if isinstance(module, AttentionModuleMixin):
        return bool(module.fused_projections)
    return hasattr(module, "get_processor") and "Fused" in type(module.get_processor()).__name__


def _remembers(module: nn.Module) -> bool:
    """Whether one of diffusers' hooks on a module has a state; those that only move tensors have none."""
    registry = getattr(module, "_diffusers_hook", None)
    return registry is not None and any(hook._is_stateful for hook in registry.hooks.values())
