"""Singular values and vectors: against torch's own decomposition, and with signs that do not depend on it. Below, the
adapter of that name: against the formulas of the official code (tests/golden/adapters.json)."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn

from grainline.adapters._seam import attach
from grainline.adapters._spectral import factors, random_singular_values, rank_reaching, ranks, singular_values
from grainline.adapters.spectral import Spectral
from grainline.adapters.spectral_torch import fuse
from grainline.errors import ModelError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adapters.json").read_text(encoding="utf-8"))


@pytest.fixture(params=[(20, 33), (33, 20)])
def weight(request: pytest.FixtureRequest) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(request.param) @ torch.diag(0.8 ** torch.arange(request.param[1]))


def test_singular_values_are_torchs(weight: torch.Tensor) -> None:
    assert torch.allclose(singular_values(weight), torch.linalg.svdvals(weight.double()), atol=1e-7)
    assert torch.allclose(
        singular_values(weight.bfloat16()), torch.linalg.svdvals(weight.bfloat16().double()), atol=1e-7
    )


@pytest.mark.parametrize("randomised", [False, True])
def test_factors_rebuild_the_weight(weight: torch.Tensor, randomised: bool) -> None:
    U, S, V = factors(weight, 5, randomised=randomised)
    best = torch.linalg.svdvals(weight)[5:].norm()
    assert (weight - U @ torch.diag(S) @ V.T).norm() == pytest.approx(float(best), rel=1e-4)
    assert torch.allclose(U.T @ U, torch.eye(5), atol=1e-5)
    assert torch.allclose(V.T @ V, torch.eye(5), atol=1e-5)
    assert torch.equal(factors(weight, 5, randomised=randomised).U_OK, U)


def test_signs_are_fixed(weight: torch.Tensor) -> None:
    U, S, V = factors(weight)
    flipped = factors((U * -1) @ torch.diag(S) @ (V * -1).T)
    assert (U.abs().argmax(dim=0) == flipped.U_OK.abs().argmax(dim=0)).all()
    assert torch.allclose(flipped.U_OK[:, :8], U[:, :8], atol=1e-3)
    assert (U.gather(0, U.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_rank_that_reaches_a_share() -> None:
    golden = GOLDEN["sara_rank"]
    values = torch.tensor(golden["S"], dtype=torch.float64)
    for share, reach, below in zip(
        golden["thresholds"], golden["k_smallest_reaching"], golden["k_count_strictly_below"], strict=True
    ):
        assert rank_reaching(values, share) == reach
        assert rank_reaching(values, share, strictly_below=True) == max(1, below)  # never no rank at all


def test_a_random_matrix_is_known_without_its_weights() -> None:
    for shape, known in GOLDEN["sara_rank_of_gaussian_weight"]["values"].items():
        outputs, inputs = map(int, shape.removeprefix("gaussian_").split("x"))
        values = random_singular_values(outputs, inputs)
        for share, rank in known.items():
            assert abs(rank_reaching(values, float(share)) - rank) <= 1


def test_ranks_of_a_model(weight: torch.Tensor) -> None:
    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0]), nn.Conv2d(3, 4, 5))
    model[0].weight.data = weight
    expected = rank_reaching(torch.linalg.svdvals(weight), 0.5)
    assert ranks(model, ["0"], 0.5) == {"0": expected}
    assert ranks(model, ["0", "1"], 0.99, most=2) == {"0": 2, "1": 2}
    assert (
        ranks(model.to("meta"), ["0"], 0.5)["0"] > expected
    )  # random matrices are flatter than a weight that falls off


def test_randomised_factors_leave_every_generator_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn by the CPU's, so that they are the same where the weight lies on a GPU."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("the GPU's numbers begin anew"))
    before = torch.get_rng_state()
    factors(torch.randn(40, 30, generator=torch.Generator().manual_seed(0)), 4, randomised=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_was_found_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each matrix, rank and way; another matrix has another address; a damaged file is made anew."""
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path))
    torch.manual_seed(0)
    large = torch.randn(256, 300)
    first = factors(large, 4)
    (file,) = tmp_path.glob("spectral/*.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(torch.linalg, "svd", lambda *_, **__: pytest.fail("decomposed again"))
        assert all(torch.equal(a, b) for a, b in zip(factors(large, 4), first, strict=True))
    factors(large, 4, randomised=True)
    factors(large + 1, 4)
    factors(large, 5)
    assert len(list(tmp_path.glob("spectral/*"))) == 4
    file.write_bytes(b"cut off")
    assert all(torch.equal(a, b) for a, b in zip(factors(large, 4), first, strict=True))
    factors(large)  # all of them are as large as the matrix
    factors(large[:20], 4)  # and a small one is faster than a file
    assert len(list(tmp_path.glob("spectral/*"))) == 4


def test_singular_values_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path))
    torch.manual_seed(0)
    large = torch.randn(256, 300)
    first = singular_values(large)
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda *_: pytest.fail("found again"))
    assert torch.equal(singular_values(large), first)


# ------------------------------------------------------------------------------------------- the adapter itself


class OneLayer(nn.Module):
    """The smallest model: one matrix, in float64."""

    def __init__(self, weight: Any) -> None:
        super().__init__()
        matrix = torch.as_tensor(weight, dtype=torch.float64)
        self.proj = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=torch.float64)
        self.proj.weight.data = matrix.clone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)


def adapted(weight: Any, **options: Any) -> Any:
    return attach(Spectral(targets=("proj",), **options), OneLayer(weight))


def change(model: Any, name: str = "default") -> Any:
    return model.base_model.model.proj.changes[name]


def golden(name: str) -> torch.Tensor:
    return torch.tensor(GOLDEN["spectral_adapter"][name], dtype=torch.float64)


def with_factors(model: Any) -> Any:
    """The golden's own singular vectors, which settles their signs."""
    one = change(model)
    one.U, one.S, one.V = golden("U")[:, :2].clone(), golden("S")[:2].clone(), golden("V")[:, :2].clone()
    return model


def forwarded(model: Any) -> torch.Tensor:
    """The weight that the forward uses, seen through unit vectors."""
    width = model.base_model.model.proj.base_layer.in_features
    return model.base_model.model(torch.eye(width, dtype=torch.float64)).T


def test_additive_golden() -> None:
    model = with_factors(adapted(golden("W0"), rank=2))
    change(model).spectral_A_U.data, change(model).spectral_A_V.data = golden("A_U"), golden("A_V")
    assert torch.allclose(forwarded(model), golden("W_additive"), atol=1e-9)
    assert torch.allclose(change(model).merged(golden("W0")), golden("W_additive"), atol=1e-9)


@pytest.mark.parametrize(("values", "expected"), [(False, "W_rotation_pure"), (True, "W_rotation_with_scale")])
def test_rotational_golden(values: bool, expected: str) -> None:
    model = with_factors(adapted(golden("W0"), rank=2, mode="rotational", values=values))
    one = change(model)
    one.spectral_Q_a.generator.data, one.spectral_Q_b.generator.data = (
        golden("cayley_param_a"),
        golden("cayley_param_b"),
    )
    if values:
        one.spectral_values.data = golden("scale_c") - 1
    assert torch.allclose(one.spectral_Q_a.matrix(), golden("cayley_Qa"), atol=1e-9)
    assert torch.allclose(forwarded(model), golden(expected), atol=1e-8)
    if not values:  # vectors turn among themselves: the spectrum stays
        assert torch.allclose(torch.linalg.svdvals(forwarded(model)), golden("S"), atol=1e-9)


def test_the_additive_change_has_twice_the_rank() -> None:
    torch.manual_seed(0)
    weight = torch.randn(9, 8, dtype=torch.float64)
    model = moved(adapted(weight, rank=2))
    assert torch.linalg.matrix_rank(forwarded(model).detach() - weight) == 4


def test_option_values() -> None:
    """The singular values move, the vectors stay."""
    model = adapted(torch.diag(torch.tensor([5.0, 3.0, 1.0])), rank=2, values=True)
    change(model).spectral_values.data = torch.tensor([0.5, -1.0], dtype=torch.float64)
    assert torch.allclose(forwarded(model), torch.diag(torch.tensor([5.5, 2.0, 1.0], dtype=torch.float64)))


@pytest.mark.parametrize("mode", ["additive", "rotational"])
def test_fused_adapters_do_what_each_does(mode: str) -> None:
    """W' - W of the fused is the sum, exactly, because they tune different columns."""
    torch.manual_seed(0)
    weight = torch.randn(9, 8, dtype=torch.float64)
    model = moved(adapted(weight, rank=2, mode=mode, values=True))
    model.add_adapter("second", Spectral(targets=("proj",), rank=3, block=1, mode=mode, values=True).config(model))
    model.set_adapter("second")
    moved(model)
    each = [change(model, name).merged(weight) - weight for name in ("default", "second")]
    fuse(model, ["default", "second"], into="both")
    assert model.active_adapter == "both"
    assert torch.allclose(forwarded(model) - weight, each[0] + each[1], atol=1e-12)
    assert change(model, "both").S.shape == (5,)


def test_fusion_golden() -> None:
    for block, name in enumerate(("fusion_delta0", "fusion_delta1")):
        model = adapted(golden("W0"), rank=1, block=block)
        one = change(model)
        here = slice(block, block + 1)
        one.U, one.S, one.V = golden("U")[:, here].clone(), golden("S")[here].clone(), golden("V")[:, here].clone()
        one.spectral_A_U.data, one.spectral_A_V.data = golden("A_U")[:, here].clone(), golden("A_V")[:, here].clone()
        assert torch.allclose(one.merged(golden("W0")) - golden("W0"), golden(name), atol=1e-9)


def test_what_cannot_be_fused_says_why() -> None:
    model = adapted(torch.eye(8), rank=2)
    for name, options in {"same": {}, "turned": {"mode": "rotational", "block": 1}}.items():
        model.add_adapter(name, Spectral(targets=("proj",), rank=2, **options).config(model))
    with pytest.raises(ModelError, match="'default' and 'same' tune the same columns"):
        fuse(model, ["default", "same"], into="both")
    with pytest.raises(ModelError, match="'turned' differs from 'default' in mode"):
        fuse(model, ["default", "turned"], into="both")
    with pytest.raises(ModelError, match="'third' is no spectral adapter"):
        fuse(model, ["default", "third"], into="both")


def test_loading_decomposes_nothing(tmp_path: Path, tiny_llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """U, S and V come with the adapter: their signs and order would not be found again on another machine."""
    model = attach(Spectral(rank=4), copy.deepcopy(tiny_llama))
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    monkeypatch.setattr("grainline.adapters.spectral_torch.factors", lambda *_, **__: pytest.fail("decomposed"))
    again = peft.PeftModel.from_pretrained(tiny_llama, tmp_path)
    for name, buffer in model.named_buffers():
        if "grainline" in name:
            assert torch.equal(dict(again.named_buffers())[name], buffer), name


def test_option_block() -> None:
    model = adapted(torch.diag(torch.tensor([5.0, 4.0, 3.0, 2.0])), rank=2, block=1)
    assert torch.allclose(change(model).S, torch.tensor([3.0, 2.0], dtype=torch.float64))


def test_option_randomised(weight: torch.Tensor) -> None:
    exact, fast = (change(adapted(weight, rank=4, randomised=way)) for way in (False, True))
    assert torch.allclose(fast.S, exact.S, rtol=1e-5)
    assert torch.allclose(fast.U, exact.U, atol=1e-3)
    assert not torch.equal(fast.U, exact.U)


@pytest.mark.parametrize(("mode", "count"), [("additive", 4 * (9 + 8)), ("rotational", 2 * 4 * 4)])
def test_option_mode(mode: str, count: int) -> None:
    model = adapted(torch.randn(9, 8), rank=4, mode=mode)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


def test_option_rank(tiny_llama: Any) -> None:
    with pytest.raises(ModelError, match=r"k_proj has 16 singular values, fewer than 32"):
        Spectral(rank=16, block=1).config(tiny_llama)


def test_option_targets(tiny_llama: Any) -> None:
    names = Spectral(targets=("q_proj",)).config(tiny_llama).target_modules
    assert {name.rpartition(".")[2] for name in names} == {"q_proj"}


def test_option_layers(tiny_llama: Any) -> None:
    assert all(".layers.1." in name for name in Spectral(layers=(1,)).config(tiny_llama).target_modules)


def test_a_convolution() -> None:
    """The flattened kernel is the matrix."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1))
    model = moved(attach(Spectral(targets=("0",), rank=2), model))
    x = torch.randn(2, 3, 6, 6)
    adapted_y = model(x)
    model.merge_adapter()
    assert torch.allclose(model(x), adapted_y, atol=1e-4)


def moved(model: Any) -> Any:
    for tensor in model.parameters():
        if tensor.requires_grad:
            tensor.data.add_(0.3 * torch.randn_like(tensor))
    return model
