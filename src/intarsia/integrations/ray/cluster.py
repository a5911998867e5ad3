"""A connection to a Ray cluster, which is there already or is started on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError

from intarsia.errors import SettingsError

log = logging.getLogger("intarsia.integrations.ray")

LOCAL = "auto"
"""The address of the cluster that runs on this machine."""
_ON_PURPOSE = "it was killed by `ray.kill`"  # as services are when they end
_PATIENCE = 5.0  # seconds for a cluster to answer
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # by default Ray tells its makers what it runs
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a notice about graphics cards
}


@contextlib.contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Be a driver of a cluster; one that was connected to before is used as it is, and stays.

    Args:
        address: host:port of a cluster of which this machine is a node, or `auto` for the one that runs here; without
            it that of the variable RAY_ADDRESS, or else one is started here, and ends with the block.

    Raises:
        SettingsError: nothing answers there, or Ray cannot be started.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        _check(address)
    try:
        with warnings.catch_warnings(action="ignore"):
            ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    except AuthenticationError as error:
        raise SettingsError(
            "the Ray cluster asks for a token: put that of its head into ~/.ray/auth_token, and set RAY_AUTH_MODE=token"
        ) from error
    except (OSError, RayError, RuntimeError, TimeoutError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        where = f"no Ray cluster at {address}" if address else "Ray cannot be started here"
        raise SettingsError(f"{where} ({reason}); begin one with `ray start`, and say --address HOST:PORT") from error
    try:
        with _logged():
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Have what Ray tells of lost processes go to the log: by default it is among results, on the standard output."""
    from ray._private import worker  # there is no public way; where there is no such function it is told as Ray likes

    usual = getattr(worker, "print_to_stdstream", None)

    def tell(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
        text = " ".join(" ".join(data["lines"]).split())
        if _ON_PURPOSE not in text:
            log.warning("Ray: %s", text)

    worker.print_to_stdstream = tell
    try:
        yield
    finally:
        worker.print_to_stdstream = usual


def _check(address: str) -> None:
    """Raises SettingsError unless something listens at an address; Ray itself tries for minutes."""
    if address == LOCAL:
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise SettingsError(
            f"the address of the Ray cluster is '{address}'; expected HOST:PORT of its head, or {LOCAL} for the one "
            "that runs on this machine, which must be one of its nodes"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise SettingsError(
            f"no Ray cluster answers at {address} ({error}); begin one with `ray start --head`, or give its address"
        ) from error
