"""LoRA and its variants against hand-written formulas and the figures of tests/golden/adapters.json."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from grainline import rooms
from grainline.adapters import lora_torch
from grainline.adapters._seam import attach
from grainline.adapters.lora import LoRA
from grainline.errors import ModelError, SpecError
from grainline.first_look import begin

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adapters.json").read_text(encoding="utf-8"))


class OneLayer(nn.Module):
    """The smallest model: one matrix."""

    def __init__(self, weight: Any, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        matrix = torch.tensor(weight, dtype=dtype)
        self.proj = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=dtype)
        self.proj.weight.data = matrix.clone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)

    def prepare_inputs_for_generation(self, *_: Any, **__: Any) -> None:
        """Asked for by PEFT's causal wrapper."""


def adapted(weight: Any, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    model = attach(LoRA(targets=("proj",), **options), OneLayer(weight, dtype))
    return model.base_model.model.proj


def parts(layer: Any) -> tuple[torch.Tensor, torch.Tensor, float]:
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.scaling["default"]


def test_forward_is_the_papers_equation_3() -> None:
    layer = adapted([[1.0, 2.0], [3.0, 4.0]], rank=1, alpha=3.0)
    a, b, _ = parts(layer)
    a.data, b.data = torch.tensor([[0.5, -1.0]]), torch.tensor([[2.0], [-1.0]])
    x = torch.tensor([[1.0, 2.0]])
    # W x = [5, 11]; A x = 0.5 * 1 - 1 * 2 = -1.5; s = 3 / 1; s B A x = 3 * -1.5 * [2, -1] = [-9, 4.5]
    assert torch.equal(layer(x), torch.tensor([[5.0 - 9.0, 11.0 + 4.5]]))


def test_default_scale_is_two() -> None:
    assert parts(adapted(torch.eye(32).tolist()))[2] == 32.0 / 16


def test_rslora_scale() -> None:
    golden = GOLDEN["lora_rslora"]
    scale = parts(adapted(golden["W"], rank=2, alpha=4.0, rslora=True))[2]
    assert scale == pytest.approx(4 / math.sqrt(2))
    assert scale == pytest.approx(golden["scaling"])


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_residual_inits(init: str) -> None:
    golden = GOLDEN[f"lora_{init}"]
    layer = adapted(golden["W"], rank=2, alpha=4.0, init=init)
    a, b, scale = parts(layer)
    assert torch.allclose(b @ a, torch.tensor(golden["BA"]), atol=1e-5)
    assert torch.allclose(layer.get_base_layer().weight, torch.tensor(golden["residual_base"]), atol=1e-5)
    assert torch.allclose(layer.get_base_layer().weight + scale * b @ a, torch.tensor(golden["W"]), atol=1e-5)


def test_pissa_takes_the_largest_singular_directions() -> None:
    golden = GOLDEN["lora_pissa"]
    layer = adapted(golden["W"], rank=2, alpha=4.0, init="pissa")
    left = torch.linalg.svdvals(layer.get_base_layer().weight.detach())
    assert torch.allclose(left, torch.tensor([golden["singular_values"][2], 0.0, 0.0]), atol=1e-5)


def test_dora() -> None:
    golden = GOLDEN["dora"]
    layer = adapted(golden["W"], torch.float64, rank=1, alpha=2.0, dora=True)
    magnitude = layer.lora_magnitude_vector["default"].weight
    assert torch.allclose(magnitude.double(), torch.tensor(golden["init_magnitude"], dtype=torch.float64), atol=1e-5)
    a, b, scale = parts(layer)
    a.data, b.data, magnitude.data = (torch.tensor(golden[key], dtype=torch.float64) for key in "ABm")
    weight = torch.tensor(golden["W"], dtype=torch.float64) + scale * b @ a
    x = torch.tensor(golden["x"], dtype=torch.float64)
    by_hand = (magnitude.unsqueeze(1) * weight / weight.norm(dim=1, keepdim=True)) @ x.T
    assert torch.allclose(layer(x), torch.tensor(golden["y"], dtype=torch.float64), atol=1e-8)
    assert torch.allclose(layer(x), by_hand.T, atol=1e-8)


def test_dropout_forbids_shared_prompts() -> None:
    assert LoRA().layouts == {"tree", "packed", "padded"}
    assert LoRA(dropout=0.1).layouts == {"packed", "padded"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, False), ({"init": "pissa"}, True), ({"init": "pissa_niter_4"}, True), ({"init": "olora"}, True),
     ({"init": "lora_ga"}, True),
     ({"init": "gaussian"}, False), ({"bias": "lora_only"}, True)],
)  # fmt: skip
def test_changes_base(options: dict[str, Any], expected: bool) -> None:
    assert LoRA(**options).changes_base is expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lora:init=eva", "needs activations"),
        ("lora:gamma=4", "belong to init=lora_ga"),
        ("lora:init=lora_ga,dora=true", "cannot be shipped"),
        ("lora:init=loftq", "4 bits"),
        ("lora:init=svd", "there are default, gaussian"),
        ("lora:init=pissa_niter_0", "no such init"),
        ("lora:init=orthogonal,rank=3", "even rank"),
        ("lora:init=pissa,dora=true", "cannot be shipped"),
        ("lora:init=olora,rslora=true,rank_pattern.q_proj=4", "cannot be shipped"),
        ("lora:rank=0", "greater than or equal to 1"),
    ],
)
def test_refused_options_say_why(text: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        rooms.parse("adapters", text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": r".*\.(query|key)"}, "matches no module.*q_proj"),
        ({"targets": "(q_proj"}, "not a regular expression"),
        ({"targets": ()}, "no module is named.*q_proj"),
        ({"targets": ("q_proj", "queries")}, "no module 'queries'"),  # PEFT is content if one name matches
        ({"layers": (0, 2)}, "no layer 2.*0 to 1"),
        ({"rank_pattern": {"q_porj": 4}}, "Did you mean 'q_proj'"),
        ({"modules_to_save": ("lm_heed",)}, "Did you mean 'lm_head'"),
    ],
)
def test_what_the_model_lacks(options: dict[str, Any], message: str, tiny_llama: Any) -> None:
    with pytest.raises(ModelError, match=message):
        LoRA(**options).config(tiny_llama)


def test_where_it_lands(tiny_llama: Any) -> None:
    model = attach(LoRA(targets=r".*\.(q|v)_proj", layers=(1,), rank=4, rank_pattern={"v_proj": 2}), tiny_llama)
    ranks = {
        name.removeprefix("base_model.model.model.layers.").partition(".lora_A")[0]: tensor.shape[0]
        for name, tensor in model.named_parameters()
        if "lora_A" in name
    }
    assert ranks == {"1.self_attn.q_proj": 4, "1.self_attn.v_proj": 2}


# ------------------------------------------------------------------------------------------------------------ LoRA-GA


def test_lora_ga_by_hand() -> None:
    w = torch.arange(16.0).reshape(4, 4) / 10
    g = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    adapter = LoRA(targets=("proj",), rank=1, alpha=3.0, init="lora_ga", gamma=4.0)
    model: Any = attach(adapter, OneLayer(w.tolist()))

    def loss() -> torch.Tensor:
        return (model.get_base_model()(torch.eye(4)).T * g).sum()  # sum of W * G: its gradient by W is G

    begin(adapter, model, lambda: iter([0.25 * loss(), 0.75 * loss()]))
    layer = model.base_model.model.proj
    a, b, s = parts(layer)
    c = 4**0.25 / 4**0.5
    # A: the largest right direction, e1; B: the second left one, e2; each up to its sign
    assert torch.allclose(a.abs(), c * torch.tensor([[1.0, 0.0, 0.0, 0.0]]), atol=1e-5)
    assert torch.allclose(b.abs(), c * torch.tensor([[0.0], [1.0], [0.0], [0.0]]), atol=1e-5)
    assert torch.allclose(layer.get_base_layer().weight + s * b @ a, w, atol=1e-6)
    assert [layer.get_base_layer().weight.requires_grad, a.requires_grad, b.requires_grad] == [False, True, True]
    loss().backward()
    # One step of SGD: -lr s (B dA + dB A) = -lr (s c)^2 times the best approximation of G of rank 2
    step = s * (b @ a.grad + b.grad @ a)
    assert torch.allclose(step, (s * c) ** 2 * torch.diag(torch.tensor([4.0, 3.0, 0.0, 0.0])), atol=1e-4)


def next_token(model: Any) -> torch.Tensor:
    ids = torch.arange(3, 93).reshape(3, 30)
    return model(input_ids=ids, labels=ids, use_cache=False).loss


def test_lora_ga_takes_the_directions_that_peft_takes(tiny_llama: Any) -> None:
    import peft
    from peft.tuners.lora.config import LoraGAConfig

    config = peft.LoraConfig(r=4, init_lora_weights="lora_ga", target_modules=["q_proj"])
    config.lora_ga_config = LoraGAConfig()
    theirs = copy.deepcopy(tiny_llama)
    peft.preprocess_loraga(theirs, config, lambda: next_token(theirs).backward())
    theirs = peft.get_peft_model(theirs, config)
    adapter = LoRA(rank=4, init="lora_ga", targets=("q_proj",))
    ours: Any = attach(adapter, tiny_llama)
    begin(adapter, ours, lambda: iter([next_token(ours)]))
    for i in range(2):
        name = f"base_model.model.model.layers.{i}.self_attn.q_proj"
        (a, b, _), (pa, pb, _) = parts(ours.get_submodule(name)), parts(theirs.get_submodule(name))
        for mine, other in ((a, pa), (b.T, pb.T)):
            cosine = torch.nn.functional.cosine_similarity(mine, other, dim=1).abs()
            assert float(cosine.min()) > 0.99
        c = 32**0.25 / 16**0.5
        assert torch.allclose(a.norm(dim=1), torch.full((4,), c), atol=1e-4)  # theirs: 1
        assert torch.allclose(b.norm(dim=0), torch.full((4,), c), atol=1e-4)  # theirs: c S


def test_lora_ga_begins_like_full_training(tiny_llama: Any) -> None:
    full = copy.deepcopy(tiny_llama).requires_grad_(True)
    next_token(full).backward()
    cosines: dict[str, list[float]] = {}
    for init in ("default", "lora_ga"):
        adapter = LoRA(rank=4, init=init)
        model: Any = attach(adapter, copy.deepcopy(tiny_llama))
        begin(adapter, model, lambda model=model: iter([next_token(model)]))
        next_token(model).backward()
        cosines[init] = []
        for name, weight in full.named_parameters():
            if not name.endswith("_proj.weight"):
                continue
            layer = model.get_submodule("base_model.model." + name.removesuffix(".weight"))
            a, b, s = parts(layer)
            step = s * (b @ a.grad + b.grad @ a)
            cosines[init].append(float(torch.cosine_similarity(step.flatten(), weight.grad.flatten(), dim=0)))
            if init == "lora_ga":  # the best that rank 2 r can do
                values = torch.linalg.svdvals(weight.grad)
                best = float(values[:8].norm() / values.norm())
                assert cosines[init][-1] == pytest.approx(best, abs=0.01)
    assert all(ga > plain + 0.2 for ga, plain in zip(cosines["lora_ga"], cosines["default"], strict=True))


def test_lora_ga_in_groups_is_the_same(tiny_llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []
    for held in (lora_torch.HELD, 5000):
        monkeypatch.setattr(lora_torch, "HELD", held)
        adapter = LoRA(rank=4, init="lora_ga")
        model: Any = attach(adapter, copy.deepcopy(tiny_llama))
        begin(adapter, model, lambda model=model: iter([next_token(model)]))
        starts.append({name: tensor for name, tensor in model.named_parameters() if "lora_" in name})
    for name, tensor in starts[0].items():
        torch.testing.assert_close(tensor, starts[1][name])


def test_lora_ga_needs_room_for_twice_its_rank(tiny_llama: Any) -> None:
    adapter = LoRA(rank=16, init="lora_ga")  # keys have 16 outputs
    model = attach(adapter, tiny_llama)
    with pytest.raises(ModelError, match=r"2 x 16 directions.*Set it to 8"):
        begin(adapter, model, lambda: iter([next_token(model)]))
