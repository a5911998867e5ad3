"""`compose`: a pipeline's own denoiser replaced by a composition, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from intarsia.audit.clip import KIND as CLIP
from intarsia.audit.clip import Clip
from intarsia.checks import check_whole
from intarsia.composition import ROUTINGS, Routing, routing_from
from intarsia.errors import IncompatibleError, SettingsError, UnknownName
from intarsia.integrations.diffusers.arguments import check_order, component_of, kind_of
from intarsia.integrations.diffusers.composed import ComposedModel
from intarsia.integrations.diffusers.latents import decode
from intarsia.integrations.diffusers.parts import RouterParts, check_alike, default_prior, paths
from intarsia.integrations.diffusers.plain import check_plain
from intarsia.integrations.diffusers.reading import Reader, check_names, resolve
from intarsia.integrations.diffusers.saving import Composition, record_of
from intarsia.integrations.diffusers.weighing import LOOKING, Sight, plan_of

# On one core sharing saves up to 0.4 of the time of calls of few rows, and costs 0.1 at 16 rows of a larger model.
MOST_ROWS = 8
Source = str | Path | nn.Module | None


def compose(
    pipe: Any,
    members: Mapping[str, Source],
    *,
    weights: str | Mapping[str, float] = "gaussian",
    routing: str | Routing = "threshold",
    prior: Mapping[str, float] | None = None,
    routers: Mapping[str, str | Path] | None = None,
    clip: str | Path | None = None,
    drop_text_encoder: bool = False,
    most_rows: int = MOST_ROWS,
) -> ComposedModel:
    """Put a composition in the place of a pipeline's UNet or transformer; the pipeline is then used as ever.

    Args:
        pipe: a diffusers pipeline with a `unet` or `transformer` of a class in `KINDS`.
        members: name -> LoRA file or folder (peft, diffusers, kohya), folder of a whole model or pipeline, hub id,
            module; None is the pipeline's own model.
        weights: "gaussian", "prototype" or "clip", from the parts that `fit_router` put beside the members; "ito",
            "prior" or "uniform", which need none; or a share for each member, which then holds at every step.
        routing: as in `intarsia sample`: "full", "threshold:0.01", "top_k:2", "ancestral", "posterior", "random".
        prior: shares of the members before any image is looked at; if left out, by their numbers of samples where the
            weights are of a kind that reads router parts, which say them, else equal. A routing that asks no weights
            reads only the numbers, where all members have parts.
        routers: where the router parts are of members that have them elsewhere, or no folder at all.
        clip: folder or hub id of the CLIP image model of weights "clip", the one the parts were fitted with.
        drop_text_encoder: compose LoRA files that also change the text encoder, without that part.
        most_rows: LoRA members share calls of the base of up to so many rows; 0 gives each its own.

    Returns:
        The module that now stands in the pipeline; its `realised` says what the last call did, `release` undoes it.

    Raises:
        SettingsError: no members, weights or shares that make no sense, a pipeline that is composed already or whose
            model is not plain: LoRA loaded, projections fused, cached, offloaded, attention across rows.
        InputError, IncompatibleError, CorruptError: a member that cannot be had, or does not fit the pipeline.
    """
    component = component_of(pipe)
    base = _base_of(pipe, component)
    if not isinstance(members, Mapping):
        raise SettingsError(f"members are a {type(members).__name__}, expected {{name: path, hub id or module}}")
    if not members:
        raise SettingsError("a composition needs at least one member, found none")
    if not isinstance(routers, Mapping | None):
        raise SettingsError(f"routers are {routers!r}, expected {{name: folder}}")
    if not isinstance(routing, str) and not hasattr(routing, "needs_weights"):
        raise SettingsError(f"routing is {routing!r}, expected one of {', '.join(ROUTINGS)}")
    check_whole("most_rows", most_rows, least=0)
    names = list(members)
    check_names(names)
    for name in routers or {}:
        if name not in members:
            raise UnknownName("member", name, names)
    if routers and not (isinstance(weights, str) and weights in LOOKING):
        raise SettingsError(f"routers say where router parts are, and weights {weights!r} read none; leave them out")
    route = routing_from(routing) if isinstance(routing, str) else routing
    told = isinstance(weights, str) and weights in LOOKING and len(members) > 1
    parts = {}
    if told and route.needs_weights:
        parts = _parts(pipe, members, routers or {}, names)
    elif told and prior is None and (routers or all(map(_has_part, members.values()))):
        # Draws that look at nothing are of the mixture that the same words ask of a routing that looks.
        sizes = default_prior(list(_parts(pipe, members, routers or {}, names).values()))
        prior = dict(zip(names, sizes.tolist(), strict=True))
    plan = plan_of(names, weights=weights, routing=route, prior=prior, parts=parts, sight=_sight(pipe, weights, clip))
    reader = Reader(pipe, base, component, drop_text_encoder)
    read = [reader.read(name, source) for name, source in members.items()]
    return _put(pipe, component, Composition(read, plan, parts, most_rows))


def load_composition(pipe: Any, folder: str | Path, *, clip: str | Path | None = None) -> ComposedModel:
    """Put a saved composition in the place of the UNet or transformer it was made for, as `compose` did.

    Weights "clip" need their model again, `clip`.

    Raises:
        SettingsError: the pipeline is composed already or its model not plain, a newer version of intarsia wrote the
            folder, or its weights do not look through CLIP.
        CorruptError: the folder is damaged.
        IncompatibleError: it was composed on another model (where both are in float32), for another forward process or
            kind of prediction, or in another latent space.
    """
    component = component_of(pipe)
    base = _base_of(pipe, component)
    sight = _sight(pipe, record_of(Path(folder)).get("weights"), clip)
    composition = Composition.load(Path(folder), Reader(pipe, base, component), sight)
    return _put(pipe, component, composition)


def _sight(pipe: Any, weights: Any, clip: str | Path | None) -> Sight | None:
    if clip is None:
        return None
    if weights != CLIP:
        raise SettingsError(f"clip says what weights 'clip' look with, found weights {weights!r}; leave it out")
    return Sight(Clip.load(clip), partial(decode, pipe))


def _put(pipe: Any, component: str, composition: Composition) -> ComposedModel:
    composed = ComposedModel(getattr(pipe, component), composition)
    try:
        composed.bind(pipe)
    except IncompatibleError:
        composed.release()
        raise
    setattr(pipe, component, composed)
    return composed


def _base_of(pipe: Any, component: str) -> Any:
    """The model to compose on.

    Raises:
        SettingsError: it is composed already, or not plain, or shown its channels in another order.
        UnknownName: of a class that cannot be composed.
    """
    base = getattr(pipe, component)
    if isinstance(base, ComposedModel):
        raise SettingsError(
            f"this pipeline's {component} is a composition already; put pipe.{component}.release() back first, and "
            "name all members in one call"
        )
    check_plain(base, component)
    kind_of(base)
    check_order(pipe)
    return base


def _has_part(source: Source) -> bool:
    return isinstance(source, str | Path) and paths(Path(source).expanduser())[1].exists()


def _parts(
    pipe: Any, members: Mapping[str, Source], routers: Mapping[str, str | Path], names: Sequence[str]
) -> dict[str, RouterParts]:
    """The router parts of all members: beside them, or where `routers` says."""
    parts = {}
    for name in names:
        place = routers.get(name, members[name])
        if not isinstance(place, str | Path):
            raise SettingsError(
                f"'{name}' has no folder in which a router part could be; name one in routers={{'{name}': ...}}, or "
                "choose weights that need none: 'uniform', 'prior', 'ito' or shares"
            )
        parts[name] = RouterParts.load(name, resolve(name, place))
    check_alike(parts, None)  # whether they are of this pipeline's latents is seen when it is bound
    return parts
