"""LoRA tensors under all the names that are in use -> low-rank changes by layer.

peft        base_model.model.<layer>.lora_A.weight              alpha in adapter_config.json
diffusers   unet.<layer>.lora_A.weight, transformer.<layer>...  alpha in the file's header, or <layer>.alpha
older       unet.<layer>.lora.down.weight, unet.<attention>.processor.to_q_lora.down.weight
kohya       lora_unet_<layer with underscores>.lora_down.weight, .alpha beside it
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from diffusers.utils import convert_unet_state_dict_to_peft
from torch import Tensor, nn

from intarsia.errors import IncompatibleError, InputError, counted
from intarsia.integrations.diffusers.members import LowRank

KOHYA = re.compile(r"lora_(unet|transformer|te\d?)_")
TEXT_ENCODERS = re.compile(r"(text_encoder(_\d)?\.|lora_te\d?_)")
SIDES = {"lora_A": "down", "lora_B": "up", "lora_down": "down", "lora_up": "up"}
SIDE = re.compile(r"(?P<layer>.+)\.(?P<side>lora_A|lora_B|lora_down|lora_up)(\.\w+)?\.weight")
SIDE_END = re.compile(r"\.(lora_A|lora_B|lora_down|lora_up)(\.\w+)?\.weight$")
OTHERS = {
    "lora_magnitude_vector": "DoRA",
    "dora_scale": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "lora_mid": "LoCon with a Tucker core",
    "oft_": "OFT",
}
# What peft starts from pieces of the base it trains on; the base they leave is not the one that is composed.
RESIDUAL = ("pissa", "corda", "olora", "loftq", "lora_ga")


@dataclass(frozen=True)
class Target:
    """Where the changes go: a model, its name in the pipeline, and the pipeline's class, which knows other names."""

    name: str
    model: nn.Module
    component: str
    pipeline: Any
    drop_text_encoder: bool = False

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.model.named_modules())


def layers_of(target: Target, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, LowRank]:
    """Low-rank changes by layer; `config` is peft's, empty where there is none.

    Raises:
        IncompatibleError: another method than LoRA, one for other models, or one that changes the text encoder.
        InputError: tensors that belong to no LoRA, or are none.
    """
    check_method(target.name, tensors, config)
    tensors = _without_text_encoder(target, tensors)
    if any(KOHYA.match(key) for key in tensors):
        tensors, alphas = _from_kohya(target, tensors)
    else:
        alphas = {key.removesuffix(".alpha"): value for key, value in tensors.items() if key.endswith(".alpha")}
        tensors = {key: value for key, value in tensors.items() if not key.endswith(".alpha")}
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in _renamed(tensors).items():
        match = SIDE.fullmatch(key)
        if match is None:
            raise InputError(f"'{target.name}': tensor {key} belongs to no LoRA of {target.component}; is this one?")
        sides.setdefault(_layer(match["layer"], target), {})[SIDES[match["side"]]] = tensor
    alphas = {_layer(SIDE_END.sub("", key), target): value for key, value in _renamed(alphas).items()}
    modules, scales = dict(target.model.named_modules()), _Scales(alphas, config)
    found = {layer: _low_rank(target.name, layer, pair, scales) for layer, pair in sides.items()}
    return {layer: _shaped(low_rank, modules.get(layer)) for layer, low_rank in found.items()}


def _low_rank(name: str, layer: str, pair: Mapping[str, Tensor], scales: _Scales) -> LowRank:
    if len(pair) < 2:
        raise InputError(f"'{name}': layer {layer} has only its {next(iter(pair))} half; restore the file")
    for tensor in pair.values():
        if tensor.ndim < 2 or not tensor.numel():
            raise InputError(f"'{name}': layer {layer} has a half of shape {tuple(tensor.shape)}; restore the file")
        if not tensor.is_floating_point() or not bool(tensor.float().isfinite().all()):
            raise InputError(f"'{name}': layer {layer} holds what are no numbers; restore the file, or train it again")
    try:
        return LowRank(pair["down"], pair["up"], scales.of(layer, len(pair["down"])))
    except (TypeError, ValueError, RuntimeError, re.error) as error:
        line = " ".join(str(error).split())
        raise InputError(f"'{name}': the alpha of layer {layer} cannot be read ({line}); restore the file") from error


def _shaped(low_rank: LowRank, module: nn.Module | None) -> LowRank:
    """A linear layer and a 1x1 convolution are the same map: files say the one where the model has the other."""
    down, up = low_rank.down, low_rank.up
    if isinstance(module, nn.Linear) and down.shape[2:] == up.shape[2:] == (1, 1):
        return replace(low_rank, down=down.flatten(1), up=up.flatten(1))
    if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and down.ndim == up.ndim == 2:
        return replace(low_rank, down=down[..., None, None], up=up[..., None, None])
    return low_rank


def check_method(name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Raises IncompatibleError for what is not plain LoRA, InputError for an empty file."""
    if not tensors:
        raise InputError(f"'{name}': the file holds no tensors")
    for mark, method in OTHERS.items():
        if any(mark in key for key in tensors):
            raise IncompatibleError(f"'{name}' is a {method}; only plain LoRA can be composed, or a whole model")
    if str(config.get("peft_type", "LORA")).upper() != "LORA" or config.get("use_dora"):
        raise IncompatibleError(f"'{name}' is peft's {config.get('peft_type')}, expected LORA without use_dora")
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(RESIDUAL):
        raise IncompatibleError(
            f"'{name}' was started by {start}, and belongs on what that left of its base; save it converted to plain "
            "LoRA, by peft's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    if config.get("modules_to_save") or config.get("bias", "none") != "none" or config.get("lora_bias"):
        raise IncompatibleError(f"'{name}' also replaces modules or biases; train it as LoRA only, or as a whole model")


def _without_text_encoder(target: Target, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    kept = {key: tensor for key, tensor in tensors.items() if not TEXT_ENCODERS.match(key)}
    if len(kept) < len(tensors) and not target.drop_text_encoder:
        others = counted(len(tensors) - len(kept), "tensor")
        raise IncompatibleError(
            f"'{target.name}' also changes the text encoder ({others}), which all members share; compose it without "
            "that part by drop_text_encoder=True"
        )
    if not kept:
        raise IncompatibleError(f"'{target.name}' changes the text encoder only; there is nothing in it to compose")
    return kept


def _from_kohya(target: Target, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors and alphas under names with dots: by the model's own names, or else by diffusers' conversion."""
    dotted = {name.replace(".", "_"): name for name in target.names}
    own: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        flat, _, rest = KOHYA.sub("", key).partition(".")
        if flat not in dotted:
            return _from_diffusers(target, tensors)
        own[f"{dotted[flat]}.{rest}"] = tensor
    alphas = {key.removesuffix(".alpha"): tensor for key, tensor in own.items() if key.endswith(".alpha")}
    return {key: tensor for key, tensor in own.items() if not key.endswith(".alpha")}, alphas


def _from_diffusers(target: Target, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    convert = getattr(target.pipeline, "lora_state_dict", None)
    refusal = (
        f"'{target.name}' has kohya's names, which fit no layers of this {type(target.model).__name__}; use a file "
        "for this base model"
    )
    if convert is None:
        raise IncompatibleError(refusal)
    more = {"unet_config": target.model.config} if target.component == "unet" else {}
    try:
        with _silence():
            found = convert(dict(tensors), **more)
    except (KeyError, ValueError, IndexError, AttributeError, AssertionError, RuntimeError, TypeError) as error:
        raise IncompatibleError(refusal) from error
    converted, alphas = found[:2] if isinstance(found, tuple) else (found, None)
    return converted, {key.removesuffix(".alpha"): value for key, value in (alphas or {}).items()}


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """diffusers talks of prefixes it does not find; what does not fit is refused here, with a reason."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if all(SIDE.fullmatch(key) for key in tensors):
        return dict(tensors)
    return dict(convert_unet_state_dict_to_peft(dict(tensors)))


def _layer(name: str, target: Target) -> str:
    for prefix in ("base_model.model.", f"{target.component}."):
        name = name.removeprefix(prefix)
    return name


class _Scales:
    """alpha / rank of each layer, as the tool that trained it meant it; 1 where nothing is said."""

    def __init__(self, alphas: Mapping[str, Any], config: Mapping[str, Any]):
        self._alphas, self._config = alphas, config

    def of(self, layer: str, rank: int) -> float:
        """Raises what peft's settings make float, re or dict raise, and ValueError for an alpha that is no number."""
        alpha = self._alphas.get(layer)
        if alpha is None:
            alpha = self._pattern(layer, self._config.get("lora_alpha", rank))
        if not math.isfinite(alpha := float(alpha)):
            raise ValueError(f"found {alpha}")
        return alpha / (rank**0.5 if self._config.get("use_rslora") else rank)

    def _pattern(self, layer: str, otherwise: Any) -> Any:
        """Of several patterns that match, peft takes the first."""
        exact, others = self._patterns
        found = exact.get(layer, (len(exact) + len(others), otherwise))
        for position, pattern, alpha in others:
            if position < found[0] and pattern.match(layer):
                return alpha
        return found[1]

    @cached_property
    def _patterns(self) -> tuple[dict[str, tuple[int, Any]], list[tuple[int, re.Pattern[str], Any]]]:
        """Those that mean one layer by its whole name, as saved compositions do for each of theirs; and all others."""
        exact, others = {}, []
        for position, (key, alpha) in enumerate(dict(self._config.get("alpha_pattern") or {}).items()):
            layer = key.removeprefix("^").replace("\\", "")
            if key == whole_name(layer):
                exact[layer] = position, alpha
            else:
                others.append((position, re.compile(rf"(.*\.)?({key})$"), alpha))
        return exact, others


def whole_name(layer: str) -> str:
    """A pattern of peft's that means this layer, and none whose name ends alike."""
    return f"^{re.escape(layer)}"
