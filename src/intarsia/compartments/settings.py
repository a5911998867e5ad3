"""How a compartment is trained, as a value that checks itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from intarsia.backbone.network import Network
from intarsia.backbone.precision import resolve_precision
from intarsia.checks import check_number, check_seed, check_whole
from intarsia.compartments.accounting import Privacy
from intarsia.compartments.adapters import FullCopy, Kind, Lora, adapter_settings
from intarsia.errors import SettingsError

MOST_ROWS = 1 << 16  # images in one step; more is a slip of the keyboard
MOST_THREADS = 1024  # far beyond, the thread library itself breaks down


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How one compartment is trained. Nothing here depends on how many samples there are.

    `rows` images make a step, of which `at_once` run through the network together, and None all: fewer take less memory
    and give the same up to rounding. `slices` splits the steps evenly; `lr` None takes the network's own, or else the
    adapter kind's. `threads` None keeps the process's number; the number used is recorded, as the bytes depend on it.
    With `privacy`, `rows` is the number of images in a step on average, and everything that is learned is
    differentially private.
    """

    adapter: Kind = field(default_factory=Lora)
    steps: int = 600
    rows: int = 64
    lr: float | None = None
    warmup: int = 20
    cooldown: float = 0.5
    ema: float = 0.99
    label_dropout: float = 0.1
    slices: int = 1
    precision: str = "auto"
    threads: int | None = None
    seed: int = 0
    privacy: Privacy | None = None
    at_once: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "slices"):
            check_whole(name, getattr(self, name))
        check_whole("rows", self.rows, most=MOST_ROWS)
        check_whole("warmup", self.warmup, least=0)
        check_seed(self.seed)
        check_number("cooldown", self.cooldown, above=0, most=1)
        for name in ("ema", "label_dropout"):
            check_number(name, getattr(self, name), least=0, below=1)
        if self.lr is not None:
            check_number("lr", self.lr, above=0)
        if self.threads is not None:
            check_whole("threads", self.threads, most=MOST_THREADS)
        if self.at_once is not None:
            check_whole("at_once", self.at_once, most=MOST_ROWS)
        resolve_precision(self.precision)
        if self.steps % self.slices:
            raise SettingsError(
                f"{self.steps} steps cannot be split evenly over {self.slices} slices; change one of them"
            )
        if self.privacy is not None:
            self._check_private()

    def _check_private(self) -> None:
        if isinstance(self.adapter, FullCopy):
            raise SettingsError("a full copy is not trained privately; choose lora, prompts, parallel or text")
        if self.at_once is not None:
            raise SettingsError(
                f"private training has a size of block of its own, microbatch, and does not look at at_once "
                f"{self.at_once}; leave that out"
            )
        if self.slices > 1:
            raise SettingsError(
                f"private training in {self.slices} slices would spend on early samples again whenever a later one is "
                "forgotten; expected one slice"
            )

    @property
    def first_lr(self) -> float:
        """The learning rate after warming up."""
        return self.adapter.default_lr if self.lr is None else self.lr

    def on(self, network: Network) -> TrainSettings:
        """With what was left open as this network has it: LoRA's layers, and the learning rate.

        Raises:
            SettingsError: the adapter cannot be had on this network.
        """
        adapter = self.adapter
        if isinstance(adapter, Lora) and adapter.targets is None:
            adapter = replace(adapter, targets=network.usual_targets)
        adapter.shapes(network, classes=0)  # which refuses
        return replace(self, adapter=adapter, lr=network.usual_lr if self.lr is None else self.lr)

    def settings(self) -> dict[str, Any]:
        """JSON-able; nothing is said of privacy where there is none, nor of blocks where all rows run together."""
        values = asdict(self) | {"adapter": adapter_settings(self.adapter)}
        unsaid = [name for name in ("privacy", "at_once") if values[name] is None]
        return {name: value for name, value in values.items() if name not in unsaid}
