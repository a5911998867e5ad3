from __future__ import annotations

import pytest
import torch

from intarsia.backbone import (
    OPTIMISERS,
    UViT,
    UViTConfig,
    build_optimisers,
    optimiser_tensors,
    restore_optimisers,
    set_lr,
    trapezoid,
)
from intarsia.errors import CorruptError, UnknownName
from intarsia.files import tensors_to_bytes

CONFIG = UViTConfig(image_size=4, patch_size=2, channels=1, dim=16, depth=3, heads=2)


def network() -> UViT:
    torch.manual_seed(0)
    return UViT(CONFIG)


def optimisers_of(module: UViT, name: str) -> list[torch.optim.Optimizer]:
    return build_optimisers(name, module, lr=1e-2, weight_decay=0.01)


def walk(module: UViT, optimisers: list[torch.optim.Optimizer], steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        torch.manual_seed(step)
        module(torch.randn(4, 1, 4, 4), torch.rand(4)).square().mean().backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_state_goes_out_and_in_again(name: str) -> None:
    whole = network()
    walk(whole, optimisers_of(whole, name), 6)

    stopped = network()
    optimisers = optimisers_of(stopped, name)
    walk(stopped, optimisers, 3)
    tensors = {key: tensor.clone() for key, tensor in optimiser_tensors(optimisers).items()}
    params = {key: p.clone() for key, p in stopped.state_dict().items()}

    resumed = network()
    resumed.load_state_dict(params)
    optimisers = optimisers_of(resumed, name)
    restore_optimisers(optimisers, {"params.x": torch.zeros(1), **tensors})
    assert tensors_to_bytes(optimiser_tensors(optimisers)) == tensors_to_bytes(tensors)
    walk(resumed, optimisers, 3, first=3)
    assert tensors_to_bytes(resumed.state_dict()) == tensors_to_bytes(whole.state_dict())


def test_state_of_another_optimiser_is_refused() -> None:
    first, second = network(), network()
    optimisers = optimisers_of(first, "adamw")
    walk(first, optimisers, 1)
    with pytest.raises(CorruptError, match="does not fit the model"):
        restore_optimisers(optimisers_of(second, "muon"), optimiser_tensors(optimisers))
    with pytest.raises(CorruptError, match="does not fit the model"):
        restore_optimisers(optimisers_of(second, "adamw"), {})


def test_muon_takes_the_matrices_inside_the_blocks() -> None:
    module = network()
    names = {id(p): name for name, p in module.named_parameters()}
    muon, adamw = ({names[id(p)] for g in o.param_groups for p in g["params"]} for o in optimisers_of(module, "muon"))
    assert muon | adamw == set(names.values())
    assert muon == {
        f"{block}.{layer}.weight"
        for block in CONFIG.blocks
        for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "skip_linear")
        if layer != "skip_linear" or block.startswith("out")
    }


def test_a_learning_rate_reaches_every_optimiser() -> None:
    module = network()
    optimisers = optimisers_of(module, "muon")
    before = {name: p.clone() for name, p in module.state_dict().items()}
    set_lr(optimisers, 0.0)
    walk(module, optimisers, 1)
    assert all(torch.equal(before[name], p) for name, p in module.state_dict().items())


def test_unknown_optimiser() -> None:
    with pytest.raises(UnknownName, match="known: adamw, muon"):
        optimisers_of(network(), "sgd")


def test_trapezoid_rises_stays_and_falls() -> None:
    factors = [trapezoid(step, 100, warmup=10, cooldown=0.3) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert factors[10:71] == [1.0] * 61
    assert factors[70:] == pytest.approx([k / 30 for k in range(30, 0, -1)])


@pytest.mark.parametrize(("steps", "warmup", "cooldown"), [(1, 0, 1.0), (1, 200, 0.3), (5, 3, 1.0), (1000, 0, 0.01)])
def test_trapezoid_never_stands_still(steps: int, warmup: int, cooldown: float) -> None:
    assert all(0 < trapezoid(step, steps, warmup=warmup, cooldown=cooldown) <= 1 for step in range(steps))
