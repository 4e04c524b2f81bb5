"""Products by oneDNN: torch's own to rounding, derivatives too; only where asked, and only what is worth it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from _build import adapted, apart, model, questions
from _truth import pulled, scored
from grainline import gemm, machine
from grainline.forward import Scorer

Handed = list[tuple[tuple[int, ...], tuple[int, ...]]]

onednn = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN")
pytestmark = onednn


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> Handed:
    """What oneDNN is handed, as (shape of the left, shape of the right matrix): on any processor, however small."""
    seen: Handed = []
    own = gemm._pointwise()

    def watched(a: Tensor, w: Tensor, *more: Any) -> Tensor:
        assert w.is_contiguous() or w.t().is_contiguous(), "a part of a matrix is multiplied by a reference kernel"
        seen.append((tuple(a.shape), tuple(w.t().shape)))
        return own(a, w, *more)

    monkeypatch.setattr(gemm, "mkl_is_narrow", lambda: True)
    monkeypatch.setattr(gemm, "LEAST", 0)
    monkeypatch.setattr(gemm, "_pointwise", lambda: watched)
    return seen


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


WAYS: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
    "linear": (F.linear, [numbers(2, 5, 7), numbers(3, 7)]),
    "linear with bias": (F.linear, [numbers(2, 5, 7), numbers(3, 7), numbers(3)]),
    "@": (lambda x, m: x @ m, [numbers(2, 5, 7), numbers(7, 3)]),
    "mm": (torch.mm, [numbers(5, 7), numbers(7, 3)]),
    "addmm": (torch.addmm, [numbers(5, 3), numbers(5, 7), numbers(7, 3)]),
    "turned": (lambda x, m: x.t() @ m.t(), [numbers(7, 5), numbers(3, 7)]),
    "a part of a matrix": (lambda x, m: x[:, ::2] @ m[1:8, :3], [numbers(5, 14), numbers(9, 8)]),
    "the same row many times": (lambda x, m: x @ m.expand(7, 3), [numbers(5, 7), numbers(1, 3)]),
}


@pytest.mark.parametrize("name", WAYS)
def test_values_and_derivatives_are_torchs(name: str, handed: Handed) -> None:
    """Beside float64: a product, the gradient by each of its parts, and the gradient of that gradient."""
    way, exact = WAYS[name]

    def all_of(parts: list[Tensor]) -> list[Tensor]:
        leaves = [part.clone().requires_grad_() for part in parts]
        value = way(*leaves)
        weight = torch.cos(torch.arange(value.numel())).view(value.shape).to(value)
        first = torch.autograd.grad((value * weight).square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(one.square().sum() for one in first), leaves)
        return [value.detach(), *(one.detach() for one in first), *second]

    wanted = all_of(exact)
    assert not handed
    with gemm.by_onednn():
        found = all_of([part.float() for part in exact])
    assert len(handed) >= 6  # the product, its two derivatives, and theirs
    assert found[0].is_contiguous()
    for ours, theirs in zip(found, wanted, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def test_products_of_a_written_out_derivative(handed: Handed) -> None:
    a, b, total = numbers(4, 6).float(), numbers(6, 2).float(), numbers(4, 2).float()
    assert torch.allclose(gemm.matmul(a, b), torch.mm(a.double(), b.double()).float(), rtol=1e-5, atol=1e-6)
    more = gemm.add_matmul(total.clone(), a, b, 0.5)
    assert torch.allclose(more, total + 0.5 * torch.mm(a, b), rtol=1e-5, atol=1e-6)
    assert handed == [((4, 6), (6, 2))] * 2


def test_what_is_left_alone(handed: Handed, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = numbers(4, 6).float(), numbers(6, 2).float()
    with gemm.by_onednn():
        assert (a.bfloat16() @ b.bfloat16()).dtype == torch.bfloat16
        assert (a.double() @ b.double()).dtype == torch.float64
        torch.bmm(a[None], b[None])
        torch.mm(a, b, out=torch.empty(4, 2))
        a[0] @ b
        a.to("meta") @ b.to("meta")
        torch.func.vmap(lambda row: row @ b)(a[:, None])
        with torch.autocast("cpu", torch.bfloat16):
            assert (a @ b).dtype == torch.bfloat16
    with gemm.by_onednn(when=False):
        a @ b
    a @ b
    monkeypatch.setattr(gemm, "LEAST", 2 * 4 * 6 * 2 + 1)
    with gemm.by_onednn():
        a @ b
    assert not handed
    monkeypatch.setattr(gemm, "LEAST", 2 * 4 * 6 * 2)
    with gemm.by_onednn():
        a @ b
    assert len(handed) == 1


def test_it_lasts_as_long_as_the_outermost_and_in_its_own_thread(handed: Handed) -> None:
    a = numbers(3, 3).float()
    with gemm.by_onednn():
        with gemm.by_onednn():
            a @ a
        assert len(handed) == 1  # once, not once by each
        a @ a
        other = threading.Thread(target=lambda: a @ a)
        other.start(), other.join()
        with pytest.raises(RuntimeError):
            a @ numbers(2, 2).float()  # torch's own message
    a @ a
    assert len(handed) == 2


@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "layers recomputed"])
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_model_reads_and_learns_as_it_did(
    fused: bool, recomputed: bool, handed: Handed, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(adapted(model("llama")).train())
    if fused:
        scorer.fuse()
    if recomputed:
        scorer.causal.gradient_checkpointing_enable({"use_reentrant": False})
    handed.clear()
    found = scored(scorer, questions(), "tree").token
    read = len(handed)
    ours = pulled(scorer, found)
    # Layers that run again in backward must do so as they did: in torch's own way.
    assert (read == 0 and len(handed) == 0) if recomputed else (read > 30 and len(handed) > 2 * read)
    with torch.no_grad():
        again = scored(scorer, questions(), "tree").token
    assert float((found - again).detach().abs().max()) < 1e-5
    monkeypatch.setattr(gemm, "mkl_is_narrow", lambda: False)
    truth = scored(scorer, questions(), "tree").token
    assert float((found - truth).detach().abs().max()) < 1e-5
    assert apart(ours, pulled(scorer, truth)) < 1e-5


def test_which_processors_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for maker, has, wanted in (
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX512_VNNI", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("", "DEFAULT", False),
    ):
        monkeypatch.setattr(machine, "vendor", lambda maker=maker: maker)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda has=has: has)
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
        assert gemm.mkl_is_narrow.__wrapped__() == wanted
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
        assert not gemm.mkl_is_narrow.__wrapped__()
