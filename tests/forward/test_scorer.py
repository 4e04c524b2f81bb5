"""Tree = packed = padded = the plain model, over architectures; generation with the model's own attention.

Windows are shorter than the rows and soft-caps are low, so that an attention which forgot them would be found out.

Tolerances: GPT-2 computes in the model's dtype throughout, so float64 shows 1e-9. The others take rotary angles and
norms in float32 whatever the model's dtype (one rounding is 6e-8), which two layers carry to some 1e-6.
"""

from __future__ import annotations

import copy

import pytest
import torch

from _build import ARCHITECTURES, adapted, apart, example, model, numbers, questions
from _truth import LAYOUTS, plain, pulled, scored
from grainline.forward import Scorer, trees

WINDOWED = ["qwen2-window", "mistral", "gemma2", "gemma3"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layouts_are_the_plain_model(name: str, dtype: torch.dtype) -> None:
    values, slopes = {("gpt2", torch.float64): (1e-9, 1e-9), ("*", torch.float64): (1e-5, 1e-5)}.get(
        (name if name == "gpt2" else "*", dtype), (1e-4, 1e-4)
    )
    scorer = Scorer(adapted(model(name, dtype)))
    examples = questions()
    with scorer.plain() as own:
        truth = plain(own, examples)
        wanted = pulled(scorer, truth)
    truth = truth.detach()
    assert float(truth[truth < 0].std()) > 0.1  # tokens differ
    for layout in LAYOUTS:
        found = scored(scorer, examples, layout)
        assert found.token.dtype == dtype
        assert found.mask.tolist() == [
            [t < len(e.answers[side].ids) for t in range(12)] for side in (0, 1) for e in examples
        ]
        assert float((found.token.detach() - truth).abs().max()) < values, layout
        assert apart(pulled(scorer, found.token), wanted) < slopes, layout
        assert not found.token.detach()[~found.mask].any()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_torchs_own_attention_reads_the_same_chains(name: str) -> None:
    """What CUDA does, on a CPU: values and derivatives of both ways of attending are the plain model's."""
    scorer = Scorer(adapted(model(name, torch.float64)))
    scorer.by_products = False
    with scorer.plain() as own:
        truth = plain(own, questions())
        wanted = pulled(scorer, truth)
    for layout in ("tree", "packed"):
        found = scored(scorer, questions(), layout)
        assert float((found.token - truth).detach().abs().max()) < 1e-5
        assert apart(pulled(scorer, found.token), wanted) < 1e-5


@pytest.mark.parametrize("name", WINDOWED)
def test_the_windows_above_bite(name: str) -> None:
    short, long = model(name), model(name, sliding_window=100)
    long.load_state_dict(short.state_dict())
    with torch.no_grad():
        assert float((plain(short, questions()) - plain(long, questions())).abs().max()) > 0.01


def test_soft_caps_and_scales_above_bite() -> None:
    for name, option in {
        "gemma2": {"attn_logit_softcapping": 1000.0},
        "cohere": {"logit_scale": 1.0},
        "granite": {"logits_scaling": 1.0},
    }.items():
        with torch.no_grad():
            assert (
                float((plain(model(name), questions()) - plain(model(name, **option), questions())).abs().max()) > 0.01
            )


def test_answers_do_not_see_each_other() -> None:
    """An answer's log-probs stay the same to the last bit whatever its sibling says."""
    scorer = Scorer(model("llama"))
    prompt, answer = numbers(9, "p", 60), numbers(6, "a", 60)
    with torch.no_grad():
        one = scored(scorer, [example(0, prompt, answer, numbers(7, "b", 60))], "tree").token[0, :6]
        two = scored(scorer, [example(0, prompt, answer, numbers(7, "c", 60))], "tree").token[0, :6]
    assert torch.equal(one, two)


def test_bfloat16_is_finite_and_scored_in_float32() -> None:
    scorer = Scorer(adapted(model("llama", torch.bfloat16)))
    with torch.no_grad(), scorer.plain():
        truth = plain(copy.deepcopy(scorer.causal).float(), questions())
    for layout in LAYOUTS:
        found = scored(scorer, questions(), layout)
        assert found.token.dtype == torch.float32
        assert bool(found.token.isfinite().all())
        assert float((found.token.detach() - truth).abs().mean()) < 0.1
        assert all(bool(g.isfinite().all()) and bool(g.any()) for g in pulled(scorer, found.token).values())


def test_gradient_checkpointing_changes_no_gradient() -> None:
    scorer = Scorer(adapted(model("llama", torch.float64)))
    wanted = pulled(scorer, scored(scorer, questions(), "tree").token)
    calls = []
    scorer.causal.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    scorer.causal.activation_checkpointing_enable({"use_reentrant": False})
    scorer.train()
    assert apart(pulled(scorer, scored(scorer, questions(), "tree").token), wanted) < 1e-9
    assert len(calls) == 2  # forward, and again in backward


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_generation_inside_plain(name: str) -> None:
    base = model(name)
    prompt = torch.tensor([numbers(9, "p", 60)])
    options = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(prompt)}
    wanted = copy.deepcopy(base).generate(prompt, **options)
    scorer = Scorer(base)
    with scorer.plain() as own:
        assert torch.equal(own.generate(prompt, **options), wanted)
    assert base.config._attn_implementation == trees.ATTENTION  # and back
    with torch.no_grad(), pytest.raises(ZeroDivisionError), scorer.plain():
        _ = 1 / 0
    assert base.config._attn_implementation == trees.ATTENTION
    assert scorer.packed
