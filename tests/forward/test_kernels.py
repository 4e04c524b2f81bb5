"""Each larger operation against the small ones it stands for, and against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from grainline.forward import kernels
from grainline.forward.kernels import LowRank


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layers(dtype: torch.dtype = torch.float64) -> list[LowRank]:
    """Two layers over 5 inputs, of different width, rank and scale, one with a bias."""
    a, b = (random(r, 5, seed=r).requires_grad_() for r in (2, 3)), (random(o, r, seed=o) for o, r in ((4, 2), (6, 3)))
    (a1, a2), (b1, b2) = a, (factor.requires_grad_() for factor in b)
    one = LowRank(random(4, 5, seed=7, dtype=dtype), random(4, seed=8, dtype=dtype), a1, b1, 0.5)
    return [one, LowRank(random(6, 5, seed=9, dtype=dtype), None, a2, b2, 2.0)]


def test_low_rank_by_hand() -> None:
    """W = 2, A = 3, B = 5, s = 1/2, x = 7: y = 14 + 52.5; with dy = 1, dx = 2 + 7.5, dA = 17.5, dB = 10.5."""
    w, a, b, x = (torch.tensor([[float(n)]]) for n in (2, 3, 5, 7))
    a, b, x = a.requires_grad_(), b.requires_grad_(), x.requires_grad_()
    (y,) = kernels.low_rank(x, [LowRank(w, None, a, b, 0.5)])
    y.sum().backward()
    assert [float(t) for t in (y, x.grad, a.grad, b.grad)] == [66.5, 9.5, 17.5, 10.5]  # type: ignore[arg-type]


@pytest.mark.parametrize("tokens", [3, 2], ids=["the change in the weight", "the change beside it"])
def test_low_rank_is_each_layer_alone(tokens: int) -> None:
    x, both = random(2, tokens, 5, seed=1).requires_grad_(), layers()

    def plainly(layer: LowRank) -> Tensor:
        return F.linear(x, layer.weight, layer.bias) + F.linear(F.linear(x, layer.down), layer.up) * layer.scale

    wanted = [plainly(layer) for layer in both]
    found = kernels.low_rank(x, both)
    trains = [x, *(factor for layer in both for factor in (layer.down, layer.up))]
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)
    pull = [random(*y.shape, seed=3) for y in wanted]
    pairs = zip(torch.autograd.grad(found, trains, pull), torch.autograd.grad(wanted, trains, pull), strict=True)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in pairs)


def test_low_rank_of_an_input_without_gradient_and_of_one_answer_alone() -> None:
    """The first layer reads frozen embeddings; and a sibling's answer may never be used."""
    x, both = random(3, 5), layers()
    first, second = kernels.low_rank(x, both)
    down, up = torch.autograd.grad(first.sum(), [both[0].down, both[0].up], retain_graph=True)
    assert torch.allclose(up, 0.5 * torch.ones(4, 3, dtype=torch.float64) @ (x @ both[0].down.mT), atol=1e-12)
    assert down.shape == (2, 5)
    assert not torch.autograd.grad(second.sum(), both[0].down, allow_unused=True)[0].any()  # type: ignore[union-attr]


def test_low_rank_in_bfloat16_keeps_its_factors_in_float32() -> None:
    x = random(40, 5).bfloat16().requires_grad_()
    layer = layers(torch.bfloat16)[0]
    layer = layer._replace(
        down=layer.down.detach().float().requires_grad_(), up=layer.up.detach().float().requires_grad_()
    )
    (y,) = kernels.low_rank(x, [layer])
    grads = torch.autograd.grad(y.float().sum(), [x, layer.down, layer.up])
    assert (y.dtype, [g.dtype for g in grads]) == (torch.bfloat16, [torch.bfloat16, torch.float32, torch.float32])
    exact = (
        F.linear(x.float(), layer.weight.float(), layer.bias.float()) + 0.5 * x.float() @ layer.down.mT @ layer.up.mT
    )  # type: ignore[union-attr]
    assert float((y.float() - exact).norm() / exact.norm()) < 2**-7


def test_low_rank_in_bfloat16_is_rounded_once() -> None:
    """As far from the exact sum as its nearest bfloat16 numbers are; rounded twice it would be 1.4 times as far."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("torch multiplies bfloat16 without oneDNN here, and does not say how it adds")
    x, a, b = random(64, 96), random(8, 96, seed=1), random(80, 8, seed=2)
    x, weight, a, b = (t.bfloat16() for t in (x, random(80, 96, seed=3), a, 0.05 * b))
    (y,) = kernels.low_rank(x, [LowRank(weight, None, a.float(), b.float(), 0.5)])
    inner = (x.double() @ a.double().mT).bfloat16().double()
    exact = x.double() @ weight.double().mT + 0.5 * inner @ b.double().mT
    away, nearest = ((t.double() - exact).square().mean().sqrt() for t in (y, exact.bfloat16()))
    assert float(away / nearest) < 1.05


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rms_norm_is_transformers_own(dtype: torch.dtype) -> None:
    """One rounding apart in bfloat16, which transformers takes before the weight."""
    own = LlamaRMSNorm(8, eps=1e-3).to(dtype)
    own.weight.data = random(8, seed=2).to(dtype)
    x = random(3, 4, 8).to(dtype).requires_grad_()
    pull = random(3, 4, 8, seed=5).to(dtype)
    for a, b in zip(
        pulled(lambda: kernels.rms_norm(x, own.weight.detach(), 1e-3), [x], pull),
        pulled(lambda: own(x), [x], pull),
        strict=True,
    ):
        # the module takes its mean in float32, whatever its weights are held in
        assert float((a - b).float().norm() / b.float().norm()) < {torch.bfloat16: 2**-7}.get(dtype, 1e-6)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_gated_is_the_two_steps(activation: str) -> None:
    gate, up = (random(4, 6, seed=s).requires_grad_() for s in (1, 2))
    f = F.silu if activation == "silu" else lambda x: F.gelu(x, approximate="tanh")
    pull = random(4, 6, seed=3)
    for a, b in zip(
        pulled(lambda: kernels.gated(gate, up, activation), [gate, up], pull),
        pulled(lambda: f(gate) * up, [gate, up], pull),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def kept_in(f: Callable[[], Tensor], *own: Tensor) -> int:
    """Elements that autograd keeps of ``f``, without those of ``own``."""
    found: dict[int, int] = {}
    held = []

    def keep(x: Tensor) -> Tensor:
        held.append(x)
        found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        f()
    for x in own:
        found.pop(x.untyped_storage().data_ptr(), None)
    return sum(found.values())


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_a_layer_behind_a_gate_does_not_keep_the_product(activation: str) -> None:
    gate, up = (random(7, 5, seed=s).requires_grad_() for s in (1, 2))
    layer = layers()[0]
    trains, pull = [gate, up, layer.down, layer.up], random(7, 4, seed=3)

    def one() -> Tensor:
        return kernels.gated_low_rank(gate, up, activation, layer)

    def two() -> Tensor:
        return kernels.low_rank(kernels.gated(gate, up, activation), [layer])[0]

    for a, b in zip(pulled(one, trains, pull), pulled(two, trains, pull), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)
    assert kept_in(two, *trains) - kept_in(one, *trains) == 7 * 5


def test_layers_behind_a_norm_do_not_keep_its_answer() -> None:
    """A norm's answer is made again of what the norm keeps; one that was changed since is kept as it is."""
    x, weight, both = random(7, 5).requires_grad_(), random(5, seed=2), layers()
    trains, pull = [x, *(f for layer in both for f in (layer.down, layer.up))], random(7, 10, seed=3)

    def read(change: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.cat(kernels.low_rank(change(kernels.rms_norm(x, weight, 1e-3)), both), -1)

    def plainly(factor: float) -> Tensor:
        normed = factor * F.rms_norm(x, (5,), weight, 1e-3)
        return torch.cat(
            [F.linear(normed, n.weight, n.bias) + n.scale * normed @ n.down.mT @ n.up.mT for n in both], -1
        )

    ways: list[tuple[Callable[[Tensor], Tensor], float]] = [(lambda y: y, 1.0), (lambda y: y.mul_(2), 2.0)]
    for change, factor in ways:
        for a, b in zip(
            pulled(lambda change=change: read(change), trains, pull),
            pulled(lambda factor=factor: plainly(factor), trains, pull),
            strict=True,
        ):
            assert torch.allclose(a, b, rtol=0, atol=1e-6)  # the norm is taken in float32 at least
    same, doubled = (kept_in(lambda change=change: read(change), *trains, weight) for change, _ in ways)
    assert doubled - same == 7 * 5


@pytest.mark.parametrize("dim", [1, 2])
def test_rotation_is_transformers_own_to_the_last_bit(dim: int) -> None:
    q, k = random(1, 4, 4, 8, seed=1).requires_grad_(), random(1, 4, 4, 8, seed=2).requires_grad_()
    cos, sin = random(1, 4, 8, seed=3), random(1, 4, 8, seed=4)
    pull = random(2, 4, 4, 8, seed=5)
    for a, b in zip(
        pulled(lambda: torch.cat(kernels.rotate(q, k, cos, sin, dim)), [q, k], pull),
        pulled(lambda: torch.cat(apply_rotary_pos_emb(q, k, cos, sin, dim)), [q, k], pull),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=0, atol=1e-14)


def test_finite_differences() -> None:
    x, gate, up = random(2, 6, seed=1), random(2, 6, seed=2), random(2, 6, seed=3)
    weight, angles = random(6, seed=4), (random(2, 6, seed=5), random(2, 6, seed=6))
    checks: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (lambda x: kernels.rms_norm(x, weight, 1e-3), (x,)),
        (lambda g, u: kernels.gated(g, u, "silu"), (gate, up)),
        (lambda g, u: kernels.gated(g, u, "gelu_tanh"), (gate, up)),
        (lambda q: kernels.rotate(q, q, *angles, 0)[0], (x[None],)),
    ]
    for f, inputs in checks:
        assert gradcheck(f, tuple(one.clone().requires_grad_() for one in inputs))


def pulled(f: Callable[[], Tensor], inputs: list[Tensor], pull: Tensor) -> tuple[Tensor, ...]:
    value = f()
    return (value.detach(), *torch.autograd.grad(value, inputs, pull))
