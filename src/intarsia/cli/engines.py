"""Options of all commands that train: in this process, or on a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.errors import SettingsError, UnknownName

if TYPE_CHECKING:
    from intarsia.vault import Vault
    from intarsia.vault.engines import Engine

LOCAL, RAY = ENGINES = ("local", "ray")
_PANEL = "Where compartments are trained"


@dataclass(frozen=True)
class Engines:
    """Where compartments are trained; the bytes are the same everywhere."""

    engine: Annotated[
        str, typer.Option(help="local: in this process; ray: on a Ray cluster (docs/ray.md).", rich_help_panel=_PANEL)
    ] = LOCAL
    address: Annotated[
        str | None,
        typer.Option(
            help="ray: HOST:PORT of the cluster, of which this machine is a node, or auto for the one that runs here; "
            "without it $RAY_ADDRESS, or else Ray is started here for this command.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    cpus_per_task: Annotated[
        float | None,
        typer.Option(
            help="ray: processors that each training asks for; without it as many as it has threads.",
            rich_help_panel=_PANEL,
        ),
    ] = None

    @contextlib.contextmanager
    def chosen(self) -> Iterator[Engine | None]:
        """The engine, for as long as the block runs; None is this process.

        Raises:
            UnknownName: no such engine.
            SettingsError: an option of another engine, or there is no cluster.
            MissingExtra: Ray is not installed.
        """
        check_engine(self.engine, {"--address": self.address, "--cpus-per-task": self.cpus_per_task})
        if self.engine == LOCAL:
            yield None
            return
        from intarsia.integrations.ray import RayEngine

        with RayEngine.connected(self.address, cpus_per_task=self.cpus_per_task) as engine:
            yield engine

    @contextlib.contextmanager
    def opened(self, vault: str) -> Iterator[Vault]:
        """A vault whose compartments are trained there.

        Raises:
            As `chosen` and `Vault.open`.
        """
        from intarsia.vault import Vault

        with self.chosen() as engine:
            yield Vault.open(vault, engine=engine)


def check_engine(engine: str, for_ray: Mapping[str, object]) -> None:
    """Refuse an engine that is none, and options of Ray, by their flags, without it.

    Raises:
        UnknownName, SettingsError: says which.
    """
    if engine not in ENGINES:
        raise UnknownName("engine", engine, ENGINES)
    if engine == LOCAL and (given := [flag for flag, value in for_ray.items() if value is not None]):
        raise SettingsError(f"{given[0]} is for a Ray cluster; say --engine ray too, or leave it out")
