"""`intarsia serve`: a vault behind HTTP."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.checks import check_number, check_whole
from intarsia.cli.engines import LOCAL, check_engine
from intarsia.cli.output import Output
from intarsia.cli.parameters import VaultPath
from intarsia.errors import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from intarsia.serving import ServeSettings
    from intarsia.serving.service import Replicas
    from intarsia.vault import Vault

_RAY = "Which processes draw"
_LIMITS, _DEFAULTS = "Limits", "What is taken where a request does not say"


@dataclass(frozen=True)
class Serving:
    """What the service allows and how it draws; the defaults are the library's."""

    images: Annotated[int, typer.Option(help="Most images of one request.", rich_help_panel=_LIMITS)] = 16
    max_steps: Annotated[int, typer.Option(help="Most sampling steps of one request.", rich_help_panel=_LIMITS)] = 250
    rows: Annotated[int, typer.Option(help="Images in one forward pass.", rich_help_panel=_LIMITS)] = 64
    waiting: Annotated[
        int, typer.Option(help="Requests that may wait; more are refused with 429.", rich_help_panel=_LIMITS)
    ] = 64
    memory: Annotated[
        float, typer.Option(help="GiB of compartments that stay in memory between requests.", rich_help_panel=_LIMITS)
    ] = 2.0
    shutdown_seconds: Annotated[
        float,
        typer.Option(help="How long requests under way may go on once it is told to end.", rich_help_panel=_LIMITS),
    ] = 30.0
    steps: Annotated[int, typer.Option(help="Sampling steps.", rich_help_panel=_DEFAULTS)] = 50
    weights: Annotated[str, typer.Option(help="As for `intarsia sample`.", rich_help_panel=_DEFAULTS)] = "gaussian"
    routing: Annotated[str, typer.Option(help="As for `intarsia sample`.", rich_help_panel=_DEFAULTS)] = "threshold"
    precision: Annotated[str, typer.Option(help="Of the matrix products: auto, bfloat16 or float32.")] = "auto"
    batch_invariant: Annotated[
        bool,
        typer.Option(
            "--batch-invariant", help="Answer every image by itself, so that its bytes depend on nobody else's."
        ),
    ] = False

    receipts: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the receipts of what is forgotten over HTTP; without it VAULT.receipts beside the vault.",
            show_default=False,
        ),
    ] = None

    certificate: Annotated[
        Path | None,
        typer.Option(help="Sign images with a C2PA manifest: PEM file of the certificate and its chain, leaf first."),
    ] = None
    certificate_key: Annotated[Path | None, typer.Option(help="PEM file of that certificate's private key.")] = None

    def settings(self) -> ServeSettings:
        """What the library takes.

        Raises:
            typer.BadParameter: a certificate without its key, or a key without a certificate.
        """
        from intarsia.serving import ServeSettings
        from intarsia.serving.provenance import Seal

        given = dict(vars(self))
        check_number("--memory", self.memory, above=0)
        certificate, key = given.pop("certificate"), given.pop("certificate_key")
        if (certificate is None) != (key is None):
            raise typer.BadParameter("it takes both --certificate and --certificate-key", param_hint="--certificate")
        seal = None if certificate is None else Seal.read(certificate, key)
        return ServeSettings(memory_bytes=int(given.pop("memory") * 2**30), seal=seal, **given)


@dataclass(frozen=True)
class Fleet:
    """Which processes draw."""

    engine: Annotated[
        str,
        typer.Option(
            help="local: this process draws; ray: replicas on a Ray cluster do (docs/ray.md).", rich_help_panel=_RAY
        ),
    ] = "local"
    address: Annotated[
        str | None,
        typer.Option(
            help="ray: HOST:PORT of the cluster, of which this machine is a node, or auto for the one that runs here; "
            "without it $RAY_ADDRESS, or else Ray is started here for this command.",
            rich_help_panel=_RAY,
        ),
    ] = None
    replicas: Annotated[
        str | None,
        typer.Option(
            help="ray: how many draw, MIN:MAX by how much there is to do, or one number; 1 by default.",
            rich_help_panel=_RAY,
        ),
    ] = None
    cpus_per_replica: Annotated[
        float | None,
        typer.Option(help="ray: processors, and threads, of each; 1 by default.", rich_help_panel=_RAY),
    ] = None

    @contextlib.contextmanager
    def drawing(self, vault: Vault, settings: ServeSettings) -> Iterator[Replicas | None]:
        """Who draws, for as long as the block runs; None is this process.

        Raises:
            UnknownName: no such engine.
            SettingsError: an option of another engine, or there is no cluster, or no room in it.
            VaultError: a machine of the cluster does not see the vault's folder.
            MissingExtra: Ray Serve is not installed.
        """
        given = {"--address": self.address, "--replicas": self.replicas, "--cpus-per-replica": self.cpus_per_replica}
        check_engine(self.engine, given)
        if self.engine == LOCAL:
            yield None
            return
        require("ray.serve", "ray")
        from intarsia.integrations.ray.cluster import connected
        from intarsia.serving.replicas import Scaling, replicas

        scaling = Scaling.read(
            self.replicas or "1", cpus=1.0 if self.cpus_per_replica is None else self.cpus_per_replica
        )
        with connected(self.address), replicas(vault, settings, scaling) as found:
            yield found


def serve(
    vault: VaultPath,
    serving: Serving,
    fleet: Fleet,
    output: Output,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is every one there is.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.")] = 8000,
) -> None:
    """Serve a vault over HTTP: images to every key from what was granted to it, and from nothing else.

    It speaks the interface of OpenAI's image clients, and more; docs/service.md tells of it. On a loopback address it
    also shows the page's address with a key that may do everything and ends with the service.

    Example: intarsia serve emoji.vault --port 8000
    """
    require("fastapi", "serve")
    require("uvicorn", "serve")
    from intarsia.serving.run import bound, serve_forever
    from intarsia.vault import SCOPES, Key, Vault
    from intarsia.vault.receipts import ReceiptFolder

    check_whole("--port", port, least=0, most=65_535)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no request of a client makes one to somebody else
    settings, opened = serving.settings(), Vault.open(vault)
    if serving.receipts is not None:
        ReceiptFolder(opened.root, opened.ledger, folder=serving.receipts).check()
    with bound(host, port) as listener, fleet.drawing(opened, settings) as replicas:
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        text, owner = Key.make(scopes=SCOPES) if ipaddress.ip_address(host).is_loopback else ("", None)
        output.answer(
            {"vault": str(vault), "url": address, "key": text or None},
            f"Serving {vault} at {address}#key={text}" if text else f"Serving {vault} at {address}",
        )
        serve_forever(opened, settings, owner, listener, replicas=replicas)
