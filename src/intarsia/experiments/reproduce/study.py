"""What the recipes share: trained vaults that survive an interruption, drawing by every rule, and measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from intarsia.compartments import TrainSettings
from intarsia.composition import Result, SampleSettings, sample
from intarsia.data import Source
from intarsia.experiments.reproduce.bench import Bench
from intarsia.experiments.reproduce.scale import METHODS, Scale
from intarsia.experiments.reproduce.world import World, Yardstick
from intarsia.vault import Vault
from intarsia.vault.parts import PartSettings


@dataclass(frozen=True)
class Study:
    """One table: where its cells are kept, in what world, with what budget."""

    bench: Bench
    world: World
    scale: Scale

    def vault(
        self, name: str, sources: Sequence[Source], settings: TrainSettings, routers: Sequence[str | PartSettings]
    ) -> Vault:
        """The vault of these sources with a trained compartment for each, or as far as it got, then finished."""
        folder = self.bench.work / name
        vault = Vault.open(folder) if folder.exists() else Vault.create(folder, backbone=self.world.backbone)
        known = {info.name for info in vault.sources()}
        for source in sources:
            if source.name not in known:
                vault.add_source(source.name, source)
        done = {source.name: 0 for source in sources}
        for step in vault.training(list(done), settings, routers=routers):
            done[step.name] = step.step
            self.bench.on_step(f"train {name}", sum(done.values()), settings.steps * len(done))
        return vault

    def draw(self, vault: Vault, names: Sequence[str], method: str, settings: SampleSettings) -> Result:
        """A set of images from a composition of these sources."""
        weights, routing = METHODS[method]
        composed = vault.compose(names, weights=weights, routing=routing)
        return sample(
            composed.model,
            self.scale.images,
            settings,
            decode=vault.backbone.decode,
            on_progress=lambda done, total: self.bench.on_step(method, done, total),
        )

    def measured(self, result: Result, yardstick: Yardstick) -> dict[str, float]:
        """Distances, network calls per image, and the largest gap between a source's share and its prior."""
        gap = (result.shares - result.prior).abs().max().item()
        calls = result.calls.double().mean().item()
        return {**yardstick.measure(result.images), "calls": calls, "share gap": gap}
