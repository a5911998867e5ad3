"""Router parts in a vault: the same bytes, however many threads the process has."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from intarsia.backbone import Backbone
from intarsia.routers import HeadSettings
from intarsia.vault import Vault
from intarsia.vault.parts import fit_parts
from intarsia.vault.training import train_data

from .helpers import grown


def test_all_of_a_fit_runs_deterministically_on_one_thread(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    data = train_data(vault.backbone, grown(vault, "oak", train=False).source("oak"))
    encode, seen = Backbone.encode, []

    def spy(self: Backbone, images: Tensor) -> Tensor:
        seen.append((torch.get_num_threads(), torch.get_deterministic_debug_mode()))
        return encode(self, images)

    monkeypatch.setattr(Backbone, "encode", spy)
    torch.set_num_threads(2)
    fit_parts({"reference": HeadSettings(steps=1, batch=2, hidden=2)}, data, vault.backbone, vault.core)
    assert seen == [(1, 2)], "the core is encoded within the fit"
    assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == (2, 0)
