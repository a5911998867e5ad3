"""A service whose drawing is done by replicas on a Ray cluster.

The service itself is one process, as ever: it listens, looks at keys, keeps limits, answers owners and tells of the
ledger. Only drawing is handed over, by Ray Serve, to as many replicas as there is work for. A request whose replica is
lost is drawn by another, with the same seed, so that its client waits and learns of nothing.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.config import AutoscalingConfig, ProxyLocation
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from intarsia.checks import check_number, check_whole
from intarsia.errors import SettingsError, VaultError
from intarsia.serving.callers import Caller
from intarsia.serving.drawing import Message
from intarsia.serving.faults import Fault
from intarsia.serving.orders import SEEDS
from intarsia.serving.replica import FAILED, Mark, Replica, Sent, mark_of
from intarsia.serving.schemas import ImageRequest
from intarsia.serving.service import Service
from intarsia.serving.settings import ServeSettings
from intarsia.vault import Vault

log = logging.getLogger("intarsia.serving")

_TRIES = 4  # replicas that one request may lose
_BUSY = 8  # requests in one replica from which on another one is worth its memory
_PATIENCE = 300.0  # seconds for a node to say whether it sees the vault
_UP, _DOWN = 5.0, 300.0  # seconds of many, or of few requests until there is one replica more, or fewer
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}
_CONTROLLER, _NAMESPACE = "SERVE_CONTROLLER_ACTOR", "serve"


@dataclass(frozen=True)
class Scaling:
    """How many replicas there are: `least` always, up to `most` while many requests are under way.

    Args:
        cpus: processors that each asks for; it computes with as many threads.

    Raises:
        SettingsError: fewer than one, or `most` below `least`.
    """

    least: int = 1
    most: int = 1
    cpus: float = 1.0

    def __post_init__(self) -> None:
        check_whole("replicas", self.least)
        check_whole("replicas", self.most)
        check_number("cpus", self.cpus, above=0)
        if self.most < self.least:
            raise SettingsError(f"replicas are {self.least}:{self.most}; the smaller number comes first")

    @classmethod
    def read(cls, text: str, *, cpus: float = 1.0) -> Scaling:
        """From `MIN:MAX`, or one number for both.

        Raises:
            SettingsError: it is neither.
        """
        least, _, most = text.partition(":")
        if not least.isdecimal() or not (most or least).isdecimal() or text.endswith(":"):
            raise SettingsError(f"replicas are '{text}'; expected MIN:MAX, as in 1:4, or one number")
        return cls(int(least), int(most or least), cpus)


@dataclass(frozen=True)
class RayReplicas:
    """Those of one service, as it draws by them; `receipts` come back to it."""

    handle: Any
    most: int

    async def draw(self, service: Service, caller: Caller, request: ImageRequest) -> AsyncGenerator[Message, None]:
        """As `drawing.draw`. What was told before a replica was lost is not told again.

        Raises:
            Fault: what a replica raised; or one after the other was lost.
        """
        seed = secrets.randbelow(SEEDS) if request.seed is None else request.seed  # a second try draws the same
        seeded, told = request.model_copy(update={"seed": seed}), 0
        for _ in range(_TRIES):
            number = 0
            drawing = self.handle.draw.remote(caller, seeded)
            try:
                async for sent in drawing:
                    message, number = _received(sent, service), number + 1
                    if number > told:
                        told += 1
                        yield message
                return
            except (RayActorError, ReplicaUnavailableError) as error:
                log.warning("a replica was lost, and with it a request, which is drawn again: %s", _line(error))
            except DeploymentUnavailableError as error:
                log.error("there are no replicas any more: %s", error.message)
                break
            finally:
                drawing.cancel()
        raise Fault(503, "this request was lost with the processes that drew it; try again", code="lost", retry=5)


def _received(sent: Sent, service: Service) -> Message:
    """What a replica sent; the receipt that comes with it is kept here."""
    if sent.message.kind == FAILED:
        fields = dict(sent.message.document)
        reason, fault = fields.pop("reason"), Fault(fields.pop("status"), fields.pop("message"), **fields)
        if fault.status >= 500:
            log.error("a replica could not draw: %s", reason)
        raise fault
    if sent.number is not None and sent.drawn is not None:
        service.receipts.put(sent.number, sent.drawn)
        service.metrics.images.inc(len(sent.drawn.images))
    return sent.message


@contextlib.contextmanager
def replicas(vault: Vault, settings: ServeSettings, scaling: Scaling) -> Iterator[RayReplicas]:
    """Replicas for a service, as long as the block runs, on the cluster to which this process is connected.

    Raises:
        VaultError: a machine of the cluster does not see the vault's folder.
        SettingsError: no machine has room for a replica, or they cannot be started.
    """
    shared = vault.place != str(vault.root)
    place, mark = (vault.place, None) if shared else (str(vault.root.resolve()), mark_of(vault.root))
    _check_room(scaling)
    if mark is not None:
        _check_mounted(place, mark)
    name, ours = f"intarsia-{secrets.token_hex(4)}", not _runs_serve()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if ours:
        serve.start(proxy_location=ProxyLocation.Disabled, logging_config=_LOGGING)
    try:
        deployment = serve.deployment(Replica, name="draw", **_options(settings, scaling))
        try:
            bound = deployment.bind(place, mark, settings)
            handle = serve.run(bound, name=name, route_prefix=None, logging_config=_LOGGING)
            _log_here()
        except RuntimeError as error:
            raise SettingsError(f"the replicas cannot be started: {_line(error)}") from error
        yield RayReplicas(handle.options(stream=True), scaling.most)
    finally:
        with contextlib.suppress(RayError):
            serve.shutdown() if ours else serve.delete(name)


def _options(settings: ServeSettings, scaling: Scaling) -> dict[str, Any]:
    autoscaling = AutoscalingConfig(
        min_replicas=scaling.least,
        max_replicas=scaling.most,
        target_ongoing_requests=_BUSY,
        upscale_delay_s=_UP,
        downscale_delay_s=_DOWN,
    )
    return {
        "autoscaling_config": autoscaling,
        "max_ongoing_requests": settings.waiting + settings.rows,
        "graceful_shutdown_timeout_s": settings.shutdown_seconds,
        "max_constructor_retry_count": _TRIES,
        "ray_actor_options": {"num_cpus": scaling.cpus},
    }


def _log_here() -> None:
    """Have what Ray says go where the service's own log goes; it makes handlers of its own when it begins."""
    for name in ("ray", "ray.serve"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _runs_serve() -> bool:
    """Whether somebody else's Ray Serve is on the cluster already."""
    try:
        ray.get_actor(_CONTROLLER, namespace=_NAMESPACE)
    except ValueError:
        return False
    return True


def _check_room(scaling: Scaling) -> None:
    there = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    if (room := sum(int(have / scaling.cpus) for have in there)) < scaling.least:
        raise SettingsError(
            f"{scaling.least} replicas of {scaling.cpus:g} processors were asked for, and the Ray cluster has room for "
            f"{room}; ask for fewer (--replicas, --cpus-per-replica), or add a machine"
        )


def _check_mounted(root: str, mark: Mark) -> None:
    """Ask every node of the cluster what it sees in the vault's place."""
    look = ray.remote(num_cpus=0, max_retries=0)(mark_of)
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    asked = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(root)
        for node in nodes
    ]
    try:
        seen = ray.get(asked, timeout=_PATIENCE)
    except RayError as error:
        raise VaultError(f"a machine of the Ray cluster cannot be asked for {root}: {_line(error)}") from error
    for address, found in zip(nodes.values(), seen, strict=True):
        if found != mark:
            what = "another folder" if found else "no vault"
            raise VaultError(
                f"the machine {address} of the Ray cluster sees {what} at {root}; mount the vault's own folder there, "
                "or leave that machine out of the cluster"
            )


def _line(error: BaseException) -> str:
    """The end of an error of Ray, which carries a whole traceback, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
