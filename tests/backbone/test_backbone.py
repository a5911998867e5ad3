from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from intarsia.backbone import PLAIN, PRECISIONS, Autoencoder, AutoencoderConfig, Backbone, Plain, UViT, UViTConfig
from intarsia.diffusion import PREDICTIONS, Cosine, Flow, expand, keyed_normal, to_x0
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.files import load_tensors, save_tensors, write_json

Make = Callable[..., Backbone]
T = torch.tensor([0.1, 0.5, 0.9])


@pytest.fixture
def x_t() -> Tensor:
    return keyed_normal((3, 1, 4, 4), "x")


@pytest.fixture
def saved(tiny: Make, tmp_path: Path) -> Path:
    tiny(latent=True, labels=("a", "b")).save(tmp_path / "backbone")
    return tmp_path / "backbone"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("latent", [False, True])
@pytest.mark.parametrize("labels", [(), ("a", "b")])
def test_round_trip_is_byte_identical(latent: bool, labels: tuple[str, ...], tiny: Make, tmp_path: Path) -> None:
    backbone = replace(tiny(latent=latent, labels=labels), record={"made": "by hand"})
    backbone.save(tmp_path / "first")
    again = Backbone.load(tmp_path / "first")
    again.save(tmp_path / "second")
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second")
    assert again.digest == backbone.digest
    assert (again.labels, again.record) == (backbone.labels, backbone.record)
    channels = backbone.latent_shape[0]
    x_t = keyed_normal((3, channels, 4, 4), "x")
    assert torch.equal(again.x0_hat(x_t, T), backbone.x0_hat(x_t, T))


@pytest.mark.parametrize("name", ["network.safetensors", "autoencoder.safetensors"])
@pytest.mark.parametrize("place", [0, 40, -1])
def test_one_flipped_byte_is_noticed(name: str, place: int, saved: Path) -> None:
    data = bytearray((saved / name).read_bytes())
    data[place] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(CorruptError, match=rf"{name}: sha256 is"):
        Backbone.load(saved)


@pytest.mark.parametrize("name", ["network.safetensors", "autoencoder.safetensors", "backbone.json"])
def test_a_missing_file_is_named(name: str, saved: Path) -> None:
    (saved / name).unlink()
    with pytest.raises(CorruptError, match=rf"{name}: missing"):
        Backbone.load(saved)


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.pop("settings"),
        lambda record: record.pop("files"),
        lambda record: record["settings"]["network"].pop("dim"),
        lambda record: record["settings"]["network"].update(dims=3),
        lambda record: record["settings"]["network"].update(dim=32),
        lambda record: record["settings"]["network"].update(heads=5),
        lambda record: record["settings"]["network"].update(heads=4),
        lambda record: record["settings"].pop("prediction"),
        lambda record: record["settings"].update(prediction="eps"),
        lambda record: record["settings"].update(labels=["a", "c"]),
        lambda record: record["settings"].update(schedule={"name": "cosin"}),
        lambda record: record["files"].pop("network.safetensors"),
        lambda record: record.pop("digest"),
    ],
)
def test_a_damaged_record_is_noticed(damage: Callable[[dict], object], saved: Path) -> None:
    record = json.loads((saved / "backbone.json").read_bytes())
    damage(record)
    write_json(saved / "backbone.json", record)
    with pytest.raises(CorruptError, match=r"backbone\.json"):
        Backbone.load(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parameters_stored_in_half_load_as_float32(dtype: torch.dtype, tiny: Make, tmp_path: Path) -> None:
    backbone = tiny()
    halved = {name: p.to(dtype) for name, p in backbone.network.state_dict().items()}
    backbone.network.load_state_dict(halved)
    backbone.save(tmp_path)
    record = json.loads((tmp_path / "backbone.json").read_bytes())
    record["files"]["network.safetensors"] = save_tensors(tmp_path / "network.safetensors", halved)
    write_json(tmp_path / "backbone.json", record)
    assert {p.dtype for p in load_tensors(tmp_path / "network.safetensors").values()} == {dtype}
    again = Backbone.load(tmp_path)
    assert again.network.norm.weight.dtype == torch.float32
    assert again.digest == backbone.digest


def test_digest_names_everything_that_matters(tiny: Make) -> None:
    backbone = tiny(labels=("a", "b"))
    other = tiny(labels=("a", "b"))
    with torch.no_grad():
        other.network.norm.bias[0] += 1e-3
    different = [
        other,
        tiny(labels=("a", "c")),
        replace(backbone, prediction="eps"),
        replace(backbone, time_scale=999.0),
        replace(backbone, schedule=Flow()),
    ]
    assert len({backbone.digest, *(each.digest for each in different)}) == 6
    assert replace(backbone, record={"note": "x"}).digest == backbone.digest


def test_digests_tell_which_part_differs(tiny: Make) -> None:
    backbone = tiny(latent=True)
    other = replace(backbone, schedule=Flow())
    differing = {part for part in backbone.digests if backbone.digests[part] != other.digests[part]}
    assert set(backbone.digests) == {"network", "process", "latent_space", "convention"}
    assert differing == {"process"}


def test_equal_tensors_of_another_meaning_differ_in_the_convention(tiny: Make) -> None:
    backbone = tiny(labels=("a", "b"))
    for other in (
        replace(backbone, prediction="eps"),
        replace(backbone, time_scale=999.0),
        replace(backbone, labels=("b", "a")),
    ):
        differing = {part for part in backbone.digests if backbone.digests[part] != other.digests[part]}
        assert differing == {"convention"}


def test_a_newer_format_is_refused(saved: Path) -> None:
    record = json.loads((saved / "backbone.json").read_bytes())
    write_json(saved / "backbone.json", record | {"format": 2})
    with pytest.raises(SettingsError, match="format 2 is newer than 1, the newest known here; update intarsia"):
        Backbone.load(saved)


def test_everything_is_frozen(tiny: Make) -> None:
    backbone = tiny(latent=True)
    assert backbone.autoencoder is not None
    for module in (backbone.network, backbone.autoencoder):
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())


def test_parts_must_fit(tiny: Make) -> None:
    with pytest.raises(SettingsError, match="1 labels need a label table of 2 rows, it has 0"):
        Backbone(tiny().network, Cosine(), labels=("a",))
    with pytest.raises(SettingsError, match="0 labels need a label table of 0 rows, it has 3"):
        Backbone(tiny(labels=("a", "b")).network, Cosine())
    with pytest.raises(SettingsError, match=r"makes latents \(8, 8, 8\), the network takes \(1, 4, 4\)"):
        Backbone(tiny().network, Cosine(), autoencoder=Autoencoder(AutoencoderConfig()))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_x0_hat_reads_the_prediction(prediction: str, tiny: Make, x_t: Tensor) -> None:
    backbone = tiny(prediction=prediction)
    alpha, sigma = (expand(c(T), x_t) for c in (Cosine().alpha, Cosine().sigma))
    expected = to_x0(prediction, backbone.network(x_t, 1000 * T), x_t, alpha, sigma)
    assert torch.equal(backbone.x0_hat(x_t, T), expected)


def test_x0_hat_without_labels_is_the_null_label(tiny: Make, x_t: Tensor) -> None:
    backbone = tiny(labels=("a", "b"))
    null = backbone.x0_hat(x_t, T)
    assert torch.equal(null, backbone.x0_hat(x_t, T, torch.tensor([2, 2, 2])))
    assert not torch.equal(null, backbone.x0_hat(x_t, T, torch.tensor([0, 2, 2])))


def test_x0_hat_passes_the_adaptation_on(tiny: Make, x_t: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, louder = tiny(), Plain()
    monkeypatch.setattr(louder, "feedforward", lambda block, x, y: 2 * y)
    assert torch.equal(backbone.x0_hat(x_t, T, adaptation=PLAIN), backbone.x0_hat(x_t, T))
    assert not torch.equal(backbone.x0_hat(x_t, T, adaptation=louder), backbone.x0_hat(x_t, T))


def test_bfloat16_is_close_and_leaves_the_masters_alone(tiny: Make, x_t: Tensor) -> None:
    backbone = tiny()
    exact, digest = backbone.x0_hat(x_t, T), backbone.digest
    rough = backbone.x0_hat(x_t, T, precision="bfloat16")
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)
    assert backbone.network_in("bfloat16") is backbone.network_in("bfloat16")
    assert backbone.network_in("float32") is backbone.network
    assert replace(backbone).digest == digest
    assert {p.dtype for p in backbone.network_in("bfloat16").parameters()} == {PRECISIONS["bfloat16"]}


def test_latent_shapes(tiny: Make) -> None:
    backbone = tiny(latent=True)
    assert (backbone.image_shape, backbone.latent_shape) == ((3, 16, 16), (2, 4, 4))
    images = keyed_normal((70, 3, 16, 16), "images").clamp(-1, 1)  # more than one block
    latents = backbone.encode(images)
    assert latents.shape == (70, 2, 4, 4)
    assert backbone.decode(latents).shape == images.shape
    torch.testing.assert_close(backbone.encode(images[66:]), latents[66:])
    torch.testing.assert_close(backbone.decode(latents[66:]), backbone.decode(latents)[66:])


def test_pixels_need_no_coding(tiny: Make, stripes: Tensor) -> None:
    backbone = tiny()
    assert backbone.image_shape == backbone.latent_shape == (1, 4, 4)
    assert torch.equal(backbone.decode(backbone.encode(stripes)), stripes)


@pytest.mark.parametrize("latent", [False, True])
def test_decoded_images_stay_in_range(latent: bool, tiny: Make) -> None:
    backbone = tiny(latent=latent)
    images = backbone.decode(100 * keyed_normal((2, *backbone.latent_shape), "wild"))
    assert images.abs().max() == 1


def test_latents_of_an_autoencoder_outside_are_left_as_they_are() -> None:
    network = UViT(UViTConfig(image_size=4, patch_size=2, channels=4, dim=16, depth=3, heads=2))
    backbone = Backbone(network, Cosine())
    assert not backbone.pixels
    latents = 5 * keyed_normal((2, 4, 4, 4), "wild")
    assert torch.equal(backbone.decode(backbone.encode(latents)), latents)


@pytest.mark.parametrize("shape", [(2, 3, 15, 16), (2, 1, 16, 16), (2, 3, 16, 8)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], tiny: Make) -> None:
    with pytest.raises(IncompatibleError, match=r"this backbone takes \(3, 16, 16\); resize"):
        tiny(latent=True).encode(torch.zeros(shape))
