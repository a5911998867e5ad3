"""What a service allows and how it draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from intarsia.backbone.precision import resolve_precision
from intarsia.checks import check_number, check_whole
from intarsia.composition import routing_from
from intarsia.errors import UnknownName
from intarsia.serving.provenance import Seal
from intarsia.vault import WEIGHTS
from intarsia.vault.composing import SOUP

SERVED_WEIGHTS = tuple(sorted({*WEIGHTS, SOUP} - {"joint", "diffusion_classifier"}))
"""Kinds of weights that a client may ask for: not those that are fitted, or cost many passes, for every request."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Limits and defaults of a service.

    Args:
        images: most images of one request.
        max_steps: most sampling steps of one request.
        rows: images in one forward pass of the engine; a guided image counts twice.
        waiting: requests that wait for the engine; more are refused with 429.
        memory_bytes: compartments that stay in memory between requests.
        steps, weights, routing: what is taken where a request does not say.
        batch_invariant: answer every image by itself, so that its bytes are those of drawing it alone.
        precision: of the matrix products.
        body_bytes, body_seconds: how large a request may be, and how long it may take to arrive.
        shutdown_seconds: how long requests under way may go on once the service is told to end.
        receipts: folder for the receipts of what is forgotten; None is `VAULT.receipts` beside the vault.
        seal: signs every image with a C2PA manifest; None signs none.

    Raises:
        SettingsError: a number out of range, or a routing that is none.
        UnknownName: no such weights, routing or precision.
    """

    images: int = 16
    max_steps: int = 250
    rows: int = 64
    waiting: int = 64
    memory_bytes: int = 2 * 2**30
    steps: int = 50
    weights: str = "gaussian"
    routing: str = "threshold"
    batch_invariant: bool = False
    precision: str = "auto"
    body_bytes: int = 8 * 2**20
    body_seconds: float = 30.0
    shutdown_seconds: float = 30.0
    receipts: Path | None = None
    seal: Seal | None = None

    def __post_init__(self) -> None:
        for name in ("images", "max_steps", "rows", "waiting", "memory_bytes", "body_bytes"):
            check_whole(name, getattr(self, name))
        check_whole("steps", self.steps, most=self.max_steps)
        check_number("body_seconds", self.body_seconds, above=0)
        check_number("shutdown_seconds", self.shutdown_seconds, least=0)
        if self.weights not in SERVED_WEIGHTS:
            raise UnknownName("weights", self.weights, SERVED_WEIGHTS)
        routing_from(self.routing)
        resolve_precision(self.precision)
