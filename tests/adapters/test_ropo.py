"""RoPO: the formula, published counts, and the energy that it keeps while LoRA does not."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from grainline import geometry
from grainline.adapters import ropo_torch
from grainline.adapters._frozen import Frozen
from grainline.adapters._seam import attach, tagged
from grainline.adapters.lora import LoRA
from grainline.adapters.ropo import RoPO

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adapters.json").read_text(encoding="utf-8"))
SHAPES = {  # hidden, intermediate, heads, key-value heads, layers, vocabulary
    "llama2-7b": (4096, 11008, 32, 32, 32, 32000),
    "llama3-8b": (4096, 14336, 32, 8, 32, 128256),
    "mistral-7b": (4096, 14336, 32, 8, 32, 32000),
}


def layer(weight: Any, bias: bool = False, **options: Any) -> Any:
    matrix = torch.tensor(weight, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias, dtype=torch.float64))
    model[0].weight.data = matrix
    return attach(RoPO(targets=("0",), **options), model).base_model.model[0]


def moved(model: Any, size: float = 0.3) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.requires_grad:
                tensor.add_(size * torch.randn(tensor.shape).to(tensor))
    return model


def test_a_quarter_turn_by_hand() -> None:
    changed = layer([[3.0, 4.0], [1.0, 0.0]], bias=True, granularity="pairs")
    change = changed.changes["default"]
    change.ropo_rotation.angle.data[0] = math.pi / 2  # R e0 = e1, R e1 = -e0: R w = (-4, 3) and (0, 1)
    change.ropo_magnitude.data = torch.tensor([math.log(2), math.log(0.5)], dtype=torch.float64)
    changed.base_layer.bias.data = torch.tensor([10.0, 20.0], dtype=torch.float64)
    x = torch.tensor([[1.0, 5.0]], dtype=torch.float64)
    expected = torch.tensor([[2 * (-4 + 15) + 10, 0.5 * 5 + 20]], dtype=torch.float64)
    assert torch.allclose(changed(x), expected, atol=1e-12)
    assert torch.allclose(change.merged(changed.base_layer.weight), torch.tensor([[-8.0, 6], [0, 0.5]]).double())


@pytest.mark.parametrize("granularity", ["givens", "givens+householder", "pairs"])
def test_output_is_the_papers_formula(granularity: str) -> None:
    """z_i = m_i w_i / |w_i| . R' x with R formed, for all three rotations; golden: W_eff = diag(m / n) W R'."""
    golden = GOLDEN["ropo_layer"]
    changed = moved(layer(golden["weight_out_by_in"], granularity=granularity))
    change, W = changed.changes["default"], torch.tensor(golden["weight_out_by_in"], dtype=torch.float64)
    R, n = change.ropo_rotation.matrix(), W.norm(dim=1)
    if change.ropo_reflections is not None:
        R = change.ropo_reflections.matrix() @ R
    m = torch.tensor(golden["m"], dtype=torch.float64)
    change.ropo_magnitude.data = (m / n).log()
    x = torch.tensor(golden["x"], dtype=torch.float64)
    assert torch.allclose(changed(x), m * ((x @ R) @ (W / n.unsqueeze(1)).T), atol=1e-9)
    assert torch.allclose(change.merged(W), (m / n).unsqueeze(1) * W @ R.T, atol=1e-9)


def test_the_goldens_effective_weight() -> None:
    """With the golden's own R in the place of ours the merged weight is its W_eff."""
    golden = GOLDEN["ropo_layer"]
    changed = layer(golden["weight_out_by_in"])
    change, R = changed.changes["default"], torch.tensor(golden["R_matrix"], dtype=torch.float64)
    change.ropo_rotation = Fixed(R)
    change.ropo_magnitude.data = (torch.tensor(golden["m"]).double() / torch.tensor(golden["row_norms"])).log()
    x = torch.tensor(golden["x"], dtype=torch.float64)
    assert torch.allclose(changed(x), torch.tensor(golden["y"]).double(), atol=1e-6)
    assert torch.allclose(change.merged(changed.base_layer.weight), torch.tensor(golden["W_eff"]).double(), atol=1e-6)


@pytest.mark.parametrize("width", [20, 77])  # fewer than a group of the tree; two groups and 13 more
@pytest.mark.parametrize("granularity", ["givens", "givens+householder", "pairs"])
@pytest.mark.parametrize("magnitude", [True, False])
def test_by_weight_and_by_input_agree(
    width: int, granularity: str, magnitude: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turning the weight's rows is turning the input: output and every derivative, a bias among what is not scaled."""
    torch.manual_seed(1)
    changed = layer(torch.randn(50, width).tolist(), bias=True, granularity=granularity, magnitude=magnitude)
    changed = moved(changed, 0.5)
    x = torch.randn(3, 40, width, dtype=torch.float64, requires_grad=True)
    outer = torch.randn(3, 40, 50, dtype=torch.float64)
    wanted = [x, *(p for p in changed.parameters() if p.requires_grad)]
    found = []
    for outputs_of_a_token, way in ((0, False), (2, True)):
        monkeypatch.setattr(ropo_torch, "OUTPUTS_OF_A_TOKEN", outputs_of_a_token)
        assert ropo_torch.by_weight(x, Frozen(changed)) is way
        y = changed(x)
        found.append([y, *torch.autograd.grad(y, wanted, outer)])
    for by_input, by_weight in zip(*found, strict=True):
        assert torch.allclose(by_input, by_weight, atol=1e-11)


def test_few_tokens_and_other_dtypes_turn_the_input() -> None:
    changed = layer(torch.randn(8, 4).tolist())
    x = torch.randn(8, 4, dtype=torch.float64)
    assert ropo_torch.by_weight(x, Frozen(changed))
    assert not ropo_torch.by_weight(x[:7], Frozen(changed))
    changed.base_layer.to(torch.bfloat16)  # a turned weight would be rounded to it
    assert not ropo_torch.by_weight(x.float(), Frozen(changed, torch.float32))


class Fixed(nn.Module):
    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.R, self.width = matrix, len(matrix)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.R.T

    def transposed(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.R


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize(
    ("granularity", "row"),
    [("givens", "ropo_A_bidir_givens_plus_m"), ("givens+householder", "ropo_B_plus_2_householder")],
)
def test_counts_on_real_sizes(size: str, granularity: str, row: str) -> None:
    hidden, intermediate, heads, kv, layers, vocabulary = SHAPES[size]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        num_hidden_layers=layers,
        vocab_size=vocabulary,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    for which, targets in (("all_linear", "all-linear"), ("q_v", ("q_proj", "v_proj"))):
        adapter = RoPO(granularity=granularity, targets=targets)
        found = tagged(adapter, attach(adapter, copy.deepcopy(model)))
        assert sum(tag.tensor.numel() for tag in found) == GOLDEN["parameter_counts"][size][row][which]


def trained(model: Any, steps: int = 50) -> Any:
    """``model`` after ``steps`` steps towards a fixed text."""
    ids = torch.randint(1, 96, (4, 16), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    first = last = 0.0
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        first, last = first or float(loss), float(loss)

    assert last < first - 0.5  # it did learn
    return model


def energies(model: Any) -> list[float]:
    """Relative change of the energy, of each matrix."""
    return [
        geometry.hyperspherical_energy(after) / geometry.hyperspherical_energy(before) - 1
        for _, before, after in geometry.changed_weights(model)
    ]


@pytest.mark.parametrize("granularity", ["givens", "givens+householder", "pairs"])
def test_energy_stays_while_it_learns(granularity: str, tiny_llama: Any) -> None:
    """The paper's promise: 50 steps in float32 change no matrix's energy by more than 1e-5 of itself."""
    model = trained(attach(RoPO(granularity=granularity), tiny_llama))
    assert max(map(abs, energies(model))) < 1e-5
    assert max(geometry.rotation_angle(before, after) for _, before, after in geometry.changed_weights(model)) > 0.05
    lengths = [(after.norm(dim=1) / before.norm(dim=1)) for _, before, after in geometry.changed_weights(model)]
    assert max(float((ratio - 1).abs().max()) for ratio in lengths) > 0.01


def test_lora_changes_the_energy(tiny_llama: Any) -> None:
    model = trained(attach(LoRA(rank=4, alpha=8), tiny_llama))
    assert max(map(abs, energies(model))) > 1e-3


def test_option_granularity(tiny_llama: Any) -> None:
    names = {name for name, p in attach(RoPO(granularity="pairs"), tiny_llama).named_parameters() if p.requires_grad}
    assert any(name.endswith("ropo_rotation.angle") for name in names)


def test_option_magnitude(tiny_llama: Any) -> None:
    adapter = RoPO(magnitude=False)
    model = moved(attach(adapter, tiny_llama))
    assert {tag.role for tag in tagged(adapter, model)} == {"angle"}
    for _, before, after in geometry.changed_weights(model):
        assert torch.allclose(after.norm(dim=1), before.norm(dim=1), rtol=1e-5)


def test_option_targets(tiny_llama: Any) -> None:
    assert {name.rpartition(".")[2] for name in RoPO(targets=("q_proj",)).config(tiny_llama).target_modules} == {
        "q_proj"
    }


def test_option_layers(tiny_llama: Any) -> None:
    assert all(".layers.1." in name for name in RoPO(layers=(1,)).config(tiny_llama).target_modules)
