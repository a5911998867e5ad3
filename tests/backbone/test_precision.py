from __future__ import annotations

import pytest
import torch
from torch import nn

from intarsia.backbone import PRECISIONS, MasterParams, fastest_precision, resolve_precision
from intarsia.errors import SettingsError


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "avx2": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_asks_the_processor(capabilities: dict, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fastest_precision() == resolve_precision("auto") == expected


def test_auto_is_known_on_this_machine() -> None:
    assert resolve_precision("auto") in PRECISIONS


@pytest.mark.parametrize("name", PRECISIONS)
def test_known_precisions_stay(name: str) -> None:
    assert resolve_precision(name) == name


def test_unknown_precision() -> None:
    with pytest.raises(SettingsError, match="precision 'float16': expected auto, bfloat16 or float32"):
        resolve_precision("float16")


def stepped(precision: str, *, lr: float = 1e-4, clip: float = 1e9) -> tuple[nn.Linear, MasterParams, torch.Tensor]:
    """A layer of ones after one step of gradient descent; every gradient is 4."""
    module = nn.Linear(2, 2)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    params = MasterParams(module, precision)
    params.push()
    params.working(torch.ones(4, 2, dtype=PRECISIONS[precision])).sum().backward()
    norm = params.pull(clip)
    torch.optim.SGD(module.parameters(), lr=lr).step()
    params.push()
    return module, params, norm


@pytest.mark.parametrize("precision", PRECISIONS)
def test_masters_are_float32_and_move(precision: str) -> None:
    module, params, norm = stepped(precision)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    # A step too small for bfloat16 to show: the masters keep it.
    torch.testing.assert_close(module.weight, torch.full((2, 2), 1 - 4e-4), rtol=1e-6, atol=0)
    assert norm == pytest.approx(4 * 6**0.5)
    assert {p.dtype for p in params.working.parameters()} == {PRECISIONS[precision]}
    assert (params.working is module) == (precision == "float32")


def test_push_brings_what_the_working_copy_can_hold() -> None:
    module, params, _ = stepped("bfloat16", lr=0.1)
    assert isinstance(params.working, nn.Linear)
    assert torch.equal(params.working.weight, module.weight.bfloat16())
    assert not torch.equal(params.working.weight, torch.ones(2, 2).bfloat16())


def test_gradients_are_clipped_to_a_norm() -> None:
    module, _, norm = stepped("bfloat16", lr=0.1, clip=1.0)
    moved = torch.cat([(1 - p.detach()).flatten() for p in module.parameters()])
    assert norm > 1
    assert moved.norm() == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gradients_do_not_pile_up(precision: str) -> None:
    _, params, first = stepped(precision)
    params.working(torch.ones(4, 2, dtype=PRECISIONS[precision])).sum().backward()
    assert params.pull(1e9) == pytest.approx(first.item())


def test_parameters_without_a_gradient_are_left_alone() -> None:
    module = nn.ModuleDict({"used": nn.Linear(1, 1), "unused": nn.Linear(1, 1)})
    params = MasterParams(module, "bfloat16")
    params.working["used"](torch.ones(1, 1).bfloat16()).sum().backward()
    params.pull(1.0)
    assert module["unused"].weight.grad is None
    assert module["used"].weight.grad is not None
