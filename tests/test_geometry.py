"""Geometry of weights: by hand, against the formula written out, and untouched models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from grainline import geometry, models, rooms
from grainline.adapters._seam import attach
from grainline.errors import ModelError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "adapters.json").read_text(encoding="utf-8"))["ropo_layer"]


def test_energy_by_hand() -> None:
    # Directions: two axes and a second copy of the first, turned by 180 degrees. Distances sqrt 2, sqrt 2 and 2.
    weight = torch.tensor([[3.0, 0.0], [0.0, 0.5], [-1.0, 0.0]])
    assert geometry.hyperspherical_energy(weight) == pytest.approx(2 * (2 / math.sqrt(2) + 1 / 2))


def test_energy_of_the_golden() -> None:
    before, after = torch.tensor(GOLDEN["weight_out_by_in"]), torch.tensor(GOLDEN["W_eff"])
    assert geometry.hyperspherical_energy(before) == pytest.approx(GOLDEN["HE_before"], rel=1e-6)
    assert geometry.hyperspherical_energy(after) == pytest.approx(GOLDEN["HE_after"], rel=1e-6)
    before[0] *= -1  # a length that changes its sign turns a neuron round
    assert geometry.hyperspherical_energy(before) == pytest.approx(GOLDEN["HE_with_one_negative_magnitude"], rel=1e-6)


def test_energy_in_chunks_is_the_whole_sum_and_a_sample_is_near_it() -> None:
    torch.manual_seed(0)
    weight = torch.randn(700, 20)  # three chunks
    unit = weight.double() / weight.double().norm(dim=1, keepdim=True)
    i, j = torch.triu_indices(700, 700, 1)
    whole = 2 * float((unit[i] - unit[j]).norm(dim=1).reciprocal().sum())
    assert geometry.hyperspherical_energy(weight) == pytest.approx(whole, rel=1e-9)
    assert geometry.hyperspherical_energy(weight, sample=300) == pytest.approx(whole, rel=0.01)
    assert geometry.hyperspherical_energy(weight.reshape(700, 5, 2, 2)) == pytest.approx(whole, rel=1e-9)


def test_a_neuron_without_direction_is_left_out() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    assert geometry.hyperspherical_energy(weight) == pytest.approx(3 * 2 / math.sqrt(2))  # 2 pairs seen of 6


def test_change_angle_and_spectrum() -> None:
    before, turn = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), 0.01
    R = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    turned = before @ R.T
    assert geometry.rotation_angle(before, turned) == pytest.approx(turn, rel=1e-4)
    assert geometry.relative_change(before, turned) == pytest.approx(2 * math.sin(turn / 2), rel=1e-4)
    assert geometry.spectrum_moved(before, turned) < 1e-6
    assert geometry.rotation_angle(before, 3 * before) == 0
    assert geometry.spectrum_moved(before, 1.5 * before) == pytest.approx(0.5)
    assert geometry.spectrum_moved(before, before + torch.tensor([[1.0, 0], [0, 0]])) == pytest.approx(1 / math.sqrt(5))


@pytest.mark.parametrize("choice", ["lora", "ropo", "sara", "bone"])
def test_changed_weights_leave_the_model_alone(choice: str, tiny_llama: Any) -> None:
    model = attach(rooms.parse("adapters", choice), tiny_llama)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.requires_grad:
                tensor.add_(0.1 * torch.randn(tensor.shape))
    digest = models.fingerprint(model)
    found = {name: after for name, _, after in geometry.changed_weights(model)}
    assert models.fingerprint(model) == digest
    assert len(found) == 14
    plain = model.merge_and_unload()
    for name, after in found.items():
        assert torch.allclose(plain.get_submodule(name).weight, after, atol=1e-6)


def test_monitor(tiny_llama: Any) -> None:
    model = attach(rooms.parse("adapters", "ropo"), tiny_llama)
    fresh = geometry.monitor(model)
    assert set(fresh) == {"energy", "change", "angle", "spectrum"}
    assert max(map(abs, fresh.values())) < 1e-6
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "ropo_rotation" in name:
                tensor.add_(0.1 * torch.randn(tensor.shape))
    moved = geometry.monitor(model)
    assert moved["angle"] > 0.05
    assert abs(moved["energy"]) < 1e-5  # a rotation keeps distances, and the spectrum
    assert moved["spectrum"] < 1e-5
    assert [name for name, _, _ in geometry.changed_weights(model, most=2)] == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.mlp.down_proj",
    ]
    assert geometry.monitor(torch.nn.Linear(2, 2)) == {}


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_start_that_was_taken_out_of_the_base_is_no_change(init: str, tiny_llama: Any) -> None:
    """Its base is less than the model was: what it was merged with when fresh is what is compared with."""
    before = {name: tensor.clone() for name, tensor in tiny_llama.named_parameters()}
    model = attach(rooms.parse("adapters", f"lora:rank=4,init={init}"), tiny_llama)
    start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    assert geometry.monitor(model)["change"] > 0.1
    assert max(map(abs, geometry.monitor(model, start=start).values())) < 1e-5
    with torch.no_grad():
        for name in start:
            model.get_parameter(name).add_(0.1)
    for name, old, new in geometry.changed_weights(model, start=start):
        assert torch.allclose(old, before[f"{name}.weight"], atol=1e-5)
        assert geometry.relative_change(old, new) > 0.01


def test_a_mixture_has_no_weight_to_look_at(tiny_llama: Any) -> None:
    with pytest.raises(ModelError, match="each token mixes"):
        geometry.monitor(attach(rooms.parse("adapters", "mo-sara"), tiny_llama))
