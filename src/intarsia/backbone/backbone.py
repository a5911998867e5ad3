"""The public, frozen part that a vault's compartments share: network, forward process, latent space, label names."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.backbone.compact import pack, round_to_codes
from intarsia.backbone.latent_space import LatentSpace
from intarsia.backbone.network import Network
from intarsia.backbone.precision import PRECISIONS
from intarsia.backbone.prompts import PromptEncoder
from intarsia.backbone.stored import (
    AUTOENCODER_FILE,
    NETWORK_FILE,
    TEXT_FILE,
    load_autoencoder,
    load_network,
    load_text,
)
from intarsia.backbone.uvit import PLAIN, Adaptation
from intarsia.diffusion import Schedule, expand, schedule_from, to_x0
from intarsia.digests import canonical_json, digest_of
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.files import (
    check_format,
    read_json,
    save_tensors,
    tensors_to_bytes,
    write_atomic,
    write_json,
)

RECORD_FILE = "backbone.json"
FORMAT = 1
PICTURE_CHANNELS = (1, 3)


@dataclass(eq=False)
class Backbone:
    """A frozen denoiser and everything needed to use it.

    `network` predicts `prediction` (one of `diffusion.PREDICTIONS`) at timesteps `t * time_scale`. With `autoencoder`,
    images are `image_shape` and the network works on latents; without, on pixels. `labels` names the rows of the
    network's label table, the null label excepted. `text` reads prompts for a network that takes text states. `record`
    says how it was made.

    Raises:
        SettingsError: the parts do not fit each other.
    """

    network: Network
    schedule: Schedule
    prediction: str = "v"
    time_scale: float = 1000.0
    labels: tuple[str, ...] = ()
    autoencoder: LatentSpace | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    text: PromptEncoder | None = None

    def __post_init__(self) -> None:
        config = self.network.config
        table = len(self.labels) + 1 if self.labels else 0
        if config.num_classes != table:
            raise SettingsError(
                f"{len(self.labels)} labels need a label table of {table} rows, it has {config.num_classes}"
            )
        latent = (config.channels, config.image_size, config.image_size)
        if self.autoencoder and self.autoencoder.latent_shape != latent:
            raise SettingsError(
                f"the autoencoder makes latents {self.autoencoder.latent_shape}, the network takes {latent}; give the "
                "autoencoder of the latents that the network was trained on"
            )
        if self.text is not None and self.text.dim != config.context_dim:
            raise SettingsError(
                f"the text encoder's states are {self.text.dim} wide, the network reads {config.context_dim}; give the "
                "text encoder that the network was trained with"
            )
        for module in self._parts:
            module.eval().requires_grad_(False)

    @property
    def _parts(self) -> list[nn.Module]:
        """Everything with parameters."""
        text = None if self.text is None else self.text.model
        parts: tuple[nn.Module | None, ...] = (self.network, self.autoencoder, text)
        return [part for part in parts if part is not None]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        config = self.network.config
        return config.channels, config.image_size, config.image_size

    @property
    def pixels(self) -> bool:
        """Whether the network works on pictures; otherwise on latents, of its own autoencoder or of one outside."""
        return self.autoencoder is None and self.latent_shape[0] in PICTURE_CHANNELS

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what goes in and comes out: images, or the latents of an autoencoder outside."""
        return self.latent_shape if self.autoencoder is None else self.autoencoder.image_shape

    def network_in(self, precision: str) -> Network:
        """The network with its parameters in a precision; made once."""
        if precision not in self._networks:
            self._networks[precision] = copy.deepcopy(self.network).to(PRECISIONS[precision])
        return self._networks[precision]

    def network_with(self, changed: Mapping[str, Tensor], precision: str) -> Network:
        """The network in a precision with some parameters in place of its own, by name; all others are shared.

        Raises:
            KeyError: it has no such parameter.
        """
        network = self.network_in(precision)
        own = dict(network.named_parameters())
        put = {id(own[name]): nn.Parameter(tensor, requires_grad=False) for name, tensor in changed.items()}
        shared = {id(tensor): tensor for tensor in (*own.values(), *network.buffers())}
        return copy.deepcopy(network, shared | put)  # deepcopy takes from this what it finds there, and copies the rest

    @cached_property
    def _networks(self) -> dict[str, Network]:
        return {"float32": self.network}

    def x0_hat(
        self,
        x_t: Tensor,
        t: Tensor,
        labels: Tensor | None = None,
        *,
        adaptation: Adaptation = PLAIN,
        precision: str = "float32",
        network: Network | None = None,
    ) -> Tensor:
        """E[x0 | x_t] as the network, changed by `adaptation`, sees it.

        Args:
            x_t: (B, *latent_shape) float32.
            t: (B,) in [0, 1].
            labels: (B,) rows of the label table, or (B, tokens, dim) text states, as `context` gives them; null where
                absent. Ignored by a backbone that takes neither.
            network: one of `network_with`, of the same precision, in place of the backbone's own.
        Returns:
            (B, *latent_shape) float32.
        """
        network = network or self.network_in(precision)
        arguments = (x_t.to(PRECISIONS[precision]), t * self.time_scale, self._context(labels, x_t))
        predicted = network(*arguments, adaptation=adaptation)
        alpha, sigma = (expand(c(t), x_t) for c in (self.schedule.alpha, self.schedule.sigma))
        return to_x0(self.prediction, predicted.float(), x_t, alpha, sigma)

    def context(self, asked: Sequence[object]) -> Tensor | None:
        """What the network is told of images that are asked for these labels or prompts, None for nothing.

        Rows of the label table (B,), the null label's also for what it lacks; or text states (B, tokens, dim).
        """
        return label_rows(self.labels, asked) if self.text is None else self.text.context(asked)

    def _context(self, labels: Tensor | None, x_t: Tensor) -> Tensor | None:
        if self.text is not None:
            return self.text.context([None] * len(x_t)).to(x_t.device) if labels is None else labels
        if not self.labels:
            return None
        null = len(self.labels)
        return torch.full((len(x_t),), null, device=x_t.device) if labels is None else labels

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, *image_shape) in [-1, 1] to latents (B, *latent_shape), in blocks of fixed size."""
        if tuple(images.shape[1:]) != self.image_shape:
            raise IncompatibleError(
                f"images are {tuple(images.shape[1:])}, this backbone takes {self.image_shape}; resize them"
            )
        if self.autoencoder is None:
            return images
        with torch.no_grad():
            return torch.cat([self.autoencoder.encode(block) for block in images.split(self.autoencoder.at_once)])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, *latent_shape) to images (B, *image_shape) in [-1, 1]; latents of an outside autoencoder stay."""
        if self.autoencoder is not None:
            with torch.no_grad():
                blocks = latents.split(self.autoencoder.at_once)
                return torch.cat([self.autoencoder.decode(block).clamp(-1, 1) for block in blocks])
        return latents.clamp(-1, 1) if self.pixels else latents

    def compact(self) -> Backbone:
        """This backbone with its parameters rounded to a byte each, so that it ships in a quarter of the size."""
        other = copy.deepcopy(self)
        for module in other._parts:
            round_to_codes(module)
        other.changed()
        return other

    def changed(self) -> None:
        """Drop what was computed from the parameters; to be called by whoever has changed them."""
        for cached in ("digests", "_part_digests", "digest", "_networks"):
            self.__dict__.pop(cached, None)
        if self.text is not None:
            self.text = replace(self.text)  # with nothing computed

    def settings(self) -> dict[str, Any]:
        """All that decides what the parameters mean, JSON-able."""
        return {
            "network": self.network.config.settings(),
            "schedule": self.schedule.settings(),
            "prediction": self.prediction,
            "time_scale": self.time_scale,
            "labels": list(self.labels),
            "autoencoder": self.autoencoder.settings() if self.autoencoder else None,
        } | ({"text": self.text.settings()} if self.text else {})

    @cached_property
    def digests(self) -> dict[str, str]:
        """sha256 of the parts that members of a composition must share.

        "convention" is what gives the tensors of the other parts their meaning: shapes, prediction, time scale, labels.
        """
        meaning = {name: value for name, value in self.settings().items() if name != "schedule"}
        return self._part_digests | {"convention": digest_of(canonical_json(meaning))}

    @cached_property
    def _part_digests(self) -> dict[str, str]:
        parts = {
            "network": digest_of(tensors_to_bytes(self.network.state_dict())),
            "process": self.schedule.fingerprint(),
        }
        if self.autoencoder is not None:
            parts["latent_space"] = digest_of(tensors_to_bytes(self.autoencoder.state_dict()))
        if self.text is not None:
            parts["text_encoder"] = self.text.tensors_digest
        return parts

    @cached_property
    def digest(self) -> str:
        """One sha256 over settings and parameters: what a compartment was trained on."""
        return digest_of(canonical_json(self.settings() | {"digests": self._part_digests}))

    def save(self, folder: Path) -> None:
        """Write the backbone into `folder`, its record last."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {NETWORK_FILE: save_tensors(folder / NETWORK_FILE, pack(self.network.state_dict()))}
        if self.autoencoder is not None:
            files[AUTOENCODER_FILE] = save_tensors(folder / AUTOENCODER_FILE, pack(self.autoencoder.state_dict()))
        if self.text is not None:
            files[TEXT_FILE] = save_tensors(folder / TEXT_FILE, pack(self.text.tensors()))
            for name, data in self.text.words.items():
                write_atomic(folder / name, data)
                files[name] = digest_of(data)
        record = {
            "format": FORMAT,
            "settings": self.settings(),
            "files": files,
            "digest": self.digest,
            "record": dict(self.record),
        }
        write_json(folder / RECORD_FILE, record)

    @classmethod
    def load(cls, folder: Path) -> Backbone:
        """Read what `save` wrote.

        Raises:
            CorruptError: something is missing or not what the record says.
            SettingsError: a newer version of intarsia wrote it.
        """
        stored = read_json(folder / RECORD_FILE)
        check_format(folder / RECORD_FILE, stored.get("format"), FORMAT)
        try:
            settings, files = stored["settings"], stored["files"]
            backbone = cls(
                load_network(settings["network"], folder, files),
                schedule_from(settings["schedule"]),
                prediction=settings["prediction"],
                time_scale=settings["time_scale"],
                labels=tuple(settings["labels"]),
                autoencoder=load_autoencoder(settings["autoencoder"], folder, files),
                record=stored["record"],
                text=load_text(settings.get("text"), folder, files),
            )
        except (KeyError, TypeError, ValueError, RuntimeError, SettingsError) as error:
            raise CorruptError(
                f"{folder / RECORD_FILE}: not a backbone's record ({error}); restore the folder"
            ) from error
        if backbone.digest != stored.get("digest"):
            raise CorruptError(
                f"{folder / RECORD_FILE}: its settings are not those it was saved with; restore the folder"
            )
        return backbone


def label_rows(names: Sequence[str], labels: Sequence[object]) -> Tensor | None:
    """Rows (B,) of a table with one row per name and a last one for "none", also for labels it lacks and for prompts.

    None for an empty table.
    """
    if not names:
        return None
    place: dict[object, int] = {name: row for row, name in enumerate(names)}
    return torch.tensor([place.get(label, len(names)) for label in labels])
