"""A fused model says what the plain one says; what does not fit is left alone; off is off."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.llama import modeling_llama

from _build import ARCHITECTURES, adapted, apart, model, questions
from _truth import LAYOUTS, plain, pulled, scored
from grainline.data.collate import collate
from grainline.forward import Scorer, fuse, kernels

LLAMA = "14 adapted layers, 5 norms, 2 gated units, 1 rotary embeddings"
"""What is found in the Llama of two layers."""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_fused_is_the_plain_model(name: str) -> None:
    scorer = Scorer(adapted(model(name, torch.float64)))
    with scorer.plain() as own:
        truth = plain(own, questions())
        wanted = pulled(scorer, truth)
    scorer.fuse()
    for layout in LAYOUTS:
        found = scored(scorer, questions(), layout)
        assert float((found.token - truth).detach().abs().max()) < 1e-5
        assert apart(pulled(scorer, found.token), wanted) < 1e-5


FOUND = {
    "llama": LLAMA,
    "gemma": LLAMA,  # norms that store w - 1, a gate of tanh-GELU
    "qwen3": "14 adapted layers, 9 norms, 2 gated units, 1 rotary embeddings",
    "gpt2": "nothing",  # transposed layers, norms with a mean, no gate, no rotation
}


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found(name: str) -> None:
    assert Scorer(adapted(model(name))).fuse() == FOUND[name]


def test_layers_that_read_the_same_tensor_are_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(adapted(model("llama")))
    scorer.fuse()
    together: list[int] = []
    own = kernels.low_rank
    monkeypatch.setattr(kernels, "low_rank", lambda x, layers: (together.append(len(layers)), own(x, layers))[1])
    scorer(collate(questions()))
    assert together == [3, 1, 2] * 2  # q k v, o, gate up; down is one operation with the gate before it


def test_outside_the_scorer_the_model_is_its_own() -> None:
    """Nothing is left in the model, nor in transformers' code, whether reading ends well or not."""
    made = adapted(model("llama"))
    scorer = Scorer(made)
    scorer.fuse()

    def traces() -> list[str]:
        left = [name for name, part in made.named_modules() if "forward" in part.__dict__]
        return left + ["rotation"] * (modeling_llama.apply_rotary_pos_emb is kernels.rotate)

    seen: list[int] = []
    made.register_forward_pre_hook(lambda *_: None)
    made.get_base_model().model.norm.register_forward_pre_hook(lambda *_: seen.append(len(traces())))
    scorer(collate(questions()))
    assert (seen, traces()) == ([14 + 5 + 2 + 1], [])
    with pytest.raises(IndexError):
        scorer(collate(questions())._replace(ids=torch.tensor([[10**6]])))
    assert traces() == []


def test_the_adapter_can_be_switched_off() -> None:
    scorer = Scorer(adapted(model("llama", torch.float64)))
    wrapped: Any = scorer.model
    with wrapped.disable_adapter():
        base = scored(scorer, questions(), "tree").token.detach()
    scorer.fuse()
    with wrapped.disable_adapter():
        assert float((scored(scorer, questions(), "tree").token - base).detach().abs().max()) < 1e-6
    assert float((scored(scorer, questions(), "tree").token - base).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("options", [{"dora": True}, {"dropout": 0.1}, {"bias": "lora_only"}], ids=str)
def test_what_is_not_plain_low_rank_is_left_alone(options: dict[str, Any]) -> None:
    base = model("llama", attention_bias=True) if "bias" in options else model("llama")
    said = Scorer(adapted(base, **options)).fuse()
    assert ("adapted layers" in said) == ("bias" in options)  # layers without a bias to train are plain
    assert "14 adapted" not in said


def test_what_trains_whole_is_left_alone() -> None:
    """Full fine-tuning: norms have gradients of their own, which the larger operation does not take."""
    assert Scorer(model("llama").requires_grad_(True)).fuse() == "2 gated units, 1 rotary embeddings"


def test_a_norm_of_another_kind_is_left_alone() -> None:
    class OddRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(32), requires_grad=False), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * x / (x.abs().mean(-1, keepdim=True) + self.eps)

    made = model("llama").requires_grad_(False)
    made.model.norm = OddRMSNorm()
    assert "4 norms" in Scorer(made).fuse()


def test_what_somebody_else_has_exchanged_is_left_alone() -> None:
    """accelerate's hooks, which bring a layer's weights for the length of a call, stand where a forward stands."""
    made = adapted(model("llama"))
    norm = made.get_base_model().model.norm
    norm.forward = norm.forward
    assert "4 norms" in Scorer(made).fuse()


def test_the_proof_leaves_no_weight_changed() -> None:
    scorer = Scorer(adapted(model("llama")))
    before = {name: p.detach().clone() for name, p in scorer.named_parameters()}
    scorer.fuse()
    assert all(torch.equal(p, before[name]) for name, p in scorer.named_parameters())
    assert all(p.grad is None for p in scorer.parameters())


def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    own = kernels.rms_norm
    monkeypatch.setattr(kernels, "rms_norm", lambda x, weight, eps: 1.001 * own(x, weight, eps))
    assert "norms" not in Scorer(adapted(model("llama"))).fuse()
    assert fuse.TOLERANCE[torch.float32] < 1e-3


def test_checkpointed_layers_keep_to_their_own_operations() -> None:
    scorer = Scorer(adapted(model("llama", torch.float64)))
    wanted = pulled(scorer, scored(scorer, questions(), "tree").token)
    scorer.fuse()
    scorer.causal.activation_checkpointing_enable({"use_reentrant": False})
    scorer.train()
    assert apart(pulled(scorer, scored(scorer, questions(), "tree").token), wanted) < 1e-9


def test_a_bfloat16_models_stream_is_float32_and_its_log_probs_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last norm, and beside the same weights in float64; gradients pass in the adapter's own dtype."""

    def away(scorer: Scorer) -> float:
        return float((scored(scorer, questions(), "tree").token - truth).detach().square().mean().sqrt())

    plain = model("llama", num_hidden_layers=4)
    with torch.no_grad():  # a stream that is large beside what layers add to it, as a deep model's is
        plain.get_input_embeddings().weight.mul_(300)
    made = adapted(plain.to(torch.bfloat16))
    exact, half = Scorer(copy.deepcopy(made).double()), Scorer(made)
    assert "stream" not in exact.fuse()
    truth = scored(exact, questions(), "tree").token
    with monkeypatch.context() as without:
        without.setattr(fuse, "_float32_stream", lambda *_: None)
        half.fuse()
        narrow = away(half)
    assert half.fuse().endswith("a float32 residual stream")
    entered: list[torch.dtype] = []
    hook = half.causal.model.norm.register_forward_pre_hook(lambda _, args: entered.append(args[0].dtype))
    assert away(half) < 0.9 * narrow
    hook.remove()
    assert entered == [torch.float32]
    found, wanted = (pulled(one, scored(one, questions(), "tree").token) for one in (half, exact))
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert apart(found, wanted) < 0.3
    with half.plain() as own:  # outside, the model is its own
        assert own.get_input_embeddings()(torch.tensor([1])).dtype == torch.bfloat16


def test_who_reads_the_stream_in_bfloat16_keeps_it_so() -> None:
    """A norm that is not fused would hand float32 to bfloat16 weights."""
    made = adapted(model("llama").to(torch.bfloat16))
    made.get_base_model().model.layers[1].post_attention_layernorm.weight.requires_grad_(True)
    assert "4 norms" in (said := Scorer(made).fuse())
    assert "stream" not in said
    assert "stream" not in Scorer(adapted(model("gpt2").to(torch.bfloat16))).fuse()


@torch.no_grad()
def test_it_fuses_where_gradients_are_off() -> None:
    assert Scorer(adapted(model("llama"))).fuse() == LLAMA
