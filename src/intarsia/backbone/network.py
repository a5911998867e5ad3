"""What a backbone needs of its denoiser, whoever made it: a shape, a forward, and layers that may be adapted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

from torch import nn

from intarsia.errors import SettingsError


class NetworkConfig(Protocol):
    """The shape of a network, as far as others must know it."""

    @property
    def image_size(self) -> int:
        """Height and width of x_t."""
        ...

    @property
    def channels(self) -> int: ...

    @property
    def num_classes(self) -> int:
        """Rows of the label table, the null label included; 0 means that there is none."""
        ...

    @property
    def context_dim(self) -> int:
        """Width of the text states that the network reads; 0 means that it reads none."""
        ...

    @property
    def tokens(self) -> int:
        """How many tokens stand for an image in the widest layers."""
        ...

    def settings(self) -> dict[str, object]:
        """JSON-able."""
        ...


class Network(nn.Module, ABC):
    """A denoiser of x_t (B, C, S, S), called as `network(x_t, timesteps, context, adaptation=...)`.

    The context is what images are asked for: rows of a label table (B,), text states (B, tokens, dim), or None for a
    network that takes neither.

    `targets` are the layers that LoRA may stand beside, by the ends of their names; `usual_targets` those that it does
    where nothing is said. `usual_lr` is the learning rate of trainings that name none; None leaves it to the adapter.
    """

    targets: ClassVar[tuple[str, ...]]
    usual_targets: ClassVar[tuple[str, ...]]
    usual_lr: ClassVar[float | None] = None
    config: NetworkConfig

    @abstractmethod
    def linear_layers(self, targets: Sequence[str]) -> dict[str, nn.Linear]:
        """The layers that these targets mean, by full name."""
        ...

    def check_targets(self, targets: Sequence[str]) -> None:
        """Raises SettingsError for a target that no layer of this network has."""
        for target in targets:
            if target not in self.targets:
                raise SettingsError(
                    f"LoRA target '{target}': this backbone's network has no such layer; expected some of "
                    f"{', '.join(self.targets)}"
                )
