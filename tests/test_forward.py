"""Tree = packed = padded = the plain model, over architectures; the head in chunks; the probe; both attentions.

Windows are shorter than the rows and soft-caps are low, so that an attention which forgot them would be found out.
The truth is computed here the slow way: each (prompt, answer) alone, full logits, ``log_softmax``.

Tolerances: GPT-2 computes in the model's dtype throughout, so float64 shows 1e-9. The others take rotary angles and
norms in float32 whatever the model's dtype (one rounding is 6e-8), which two layers carry to some 1e-6.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from _build import ARCHITECTURES, WINDOW, adapted, apart, example, gradients, many, model, numbers, questions
from grainline import forward
from grainline.data.collate import Layout, collate
from grainline.errors import ModelError
from grainline.forward import Scorer, choose_layout, probe_length, tree_mask
from grainline.types import Batch, Example, LogProbs, Tree

LAYOUTS: tuple[Layout, ...] = ("tree", "packed", "padded")
WINDOWED = ["qwen2-window", "mistral", "gemma2", "gemma3"]


def plain(causal: Any, examples: list[Example]) -> Tensor:
    """(B, T) log-probs, one (prompt, answer) at a time through transformers' own forward."""
    rows = [(e.prompt, e.answers[side].ids) for side in (0, 1) for e in examples]
    found = []
    for prompt, answer in rows:
        logits = causal(torch.tensor([prompt + answer]), use_cache=False).logits[0]
        logprobs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        found.append(logprobs.gather(1, torch.tensor(answer)[:, None])[:, 0])
    return nn.utils.rnn.pad_sequence(found, batch_first=True)


def scored(scorer: Scorer, examples: list[Example], layout: Layout) -> LogProbs:
    scorer.use(packed=layout != "padded")
    return scorer(collate(examples, layout=layout))


def pulled(module: nn.Module, token: Tensor) -> dict[str, Tensor]:
    """Gradients of a weighted sum in which every token has a weight of its own."""
    module.zero_grad()
    (token * torch.cos(torch.arange(token.numel(), dtype=token.dtype)).view_as(token)).sum().backward()
    return gradients(module)


# --------------------------------------------------------------------------------------------------------- layouts


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


# ------------------------------------------------------------------------------------------------------------ head


def with_biased_head() -> Any:
    """A Phi, whose head has a bias, far from zero."""
    made = model("phi", torch.float64)
    with torch.no_grad():
        made.lm_head.bias.copy_(torch.linspace(-2, 2, 64))
    return made


HEADS: dict[str, Callable[[], Any]] = {
    "frozen": lambda: adapted(model("llama", torch.float64)),
    "frozen, tied": lambda: adapted(model("llama", torch.float64, tie_word_embeddings=True)),
    "frozen bias": lambda: adapted(with_biased_head()),
    "soft-cap": lambda: adapted(model("gemma2", torch.float64)),
    "scale": lambda: adapted(model("cohere", torch.float64)),
    "trained whole": lambda: adapted(model("llama", torch.float64), modules_to_save=("lm_head",)),
    "adapted": lambda: adapted(model("llama", torch.float64), targets=("q_proj", "lm_head")),
    "adapted bias": lambda: adapted(with_biased_head(), targets=("q_proj", "lm_head")),
    "all trains, tied": lambda: model("llama", torch.float64, tie_word_embeddings=True).requires_grad_(True),
    "head alone trains": lambda: _only_head(model("llama", torch.float64)),
}

TRAINED = {"trained whole", "adapted", "adapted bias", "head alone trains"}  # a tied head trains as the embedding


def _only_head(made: Any) -> Any:
    made.requires_grad_(False)
    made.lm_head.requires_grad_(True)
    return made


@pytest.mark.parametrize("at_once", [1, 64 * 7, 2**24], ids=["token by token", "sevens", "whole"])
@pytest.mark.parametrize("kind", HEADS)
def test_head_in_chunks(kind: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen, trained, adapted; with bias, soft-cap or scale: values and gradients are the plain model's."""
    monkeypatch.setattr(forward, "LOGITS_AT_ONCE", at_once)
    scorer = Scorer(HEADS[kind]())
    with scorer.plain() as own:
        truth = plain(own, questions())
        wanted = pulled(scorer, truth)
    assert any("lm_head" in name for name in wanted) == (kind in TRAINED)
    found = scored(scorer, questions(), "tree")
    assert float((found.token - truth).detach().abs().max()) < 1e-5
    assert apart(pulled(scorer, found.token), wanted) < 1e-5
    with torch.no_grad():
        assert torch.allclose(scored(scorer, questions(), "tree").token, found.token.detach(), rtol=0, atol=1e-12)


def test_frozen_and_checkpointed_head_have_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(adapted(model("gemma2", torch.float64)))
    rowwise = pulled(scorer, scored(scorer, questions(), "tree").token)
    monkeypatch.setattr(forward, "_is_plain_frozen", lambda head: False)
    assert apart(rowwise, pulled(scorer, scored(scorer, questions(), "tree").token)) < 1e-12


class Largest(TorchDispatchMode):
    """Remembers the most elements that any operation's result had."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return out


@pytest.mark.parametrize("kind", ["frozen", "head alone trains", "all trains", "no gradient"])
def test_logits_never_exist_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    V, chunk = 5000, 16
    monkeypatch.setattr(forward, "LOGITS_AT_ONCE", chunk * V)
    base = model("llama", vocab_size=V)
    made = {"all trains": lambda m: m, "head alone trains": _only_head}.get(kind, adapted)(base)
    scorer = Scorer(made)
    batch = collate(many(30))
    N, M = batch.ids.numel(), len(batch.target)
    assert 32 * V < M * V / 4  # the head's own weight is no excuse
    with torch.set_grad_enabled(kind != "no gradient"), Largest() as seen:
        token = scorer(batch).token
        if kind != "no gradient":
            token.sum().backward()
    assert chunk * V <= seen.elements <= 32 * V
    with Largest() as plainly, scorer.plain() as own:  # the watch does see them where they exist
        own(batch.ids)
    assert plainly.elements >= N * V


@pytest.mark.parametrize("kind", ["frozen", "head alone trains", "all trains"])
def test_nothing_of_vocabulary_size_is_kept_for_backward(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the weights, what autograd holds between forward and backward does not grow with the vocabulary."""

    def held(V: int) -> int:
        monkeypatch.setattr(forward, "LOGITS_AT_ONCE", 16 * V)
        base = model("llama", vocab_size=V)
        scorer = Scorer({"all trains": lambda m: m, "head alone trains": _only_head}.get(kind, adapted)(base))
        weights = {p.untyped_storage().data_ptr() for p in scorer.parameters()}
        seen: list[weakref.ref[Tensor]] = []

        def note(tensor: Tensor) -> Tensor:
            seen.append(weakref.ref(tensor))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            token = scorer(collate(many(30))).token
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for ref in seen if (t := ref()) is not None}
        token.sum().backward()
        return sum(storage.nbytes() for at, storage in storages.items() if at not in weights)

    assert held(5000) == held(500) > 0


# ------------------------------------------------------------------------------------------------- tree attention

TREE, POSITIONS = Tree(0, 2, (2, 1)), torch.tensor([0, 1, 2, 3, 2])  # prompt a b, answers c d and e


def test_tree_mask_by_hand() -> None:
    assert tree_mask(TREE, POSITIONS, None).int().tolist() == [
        # a  b  c  d  e
        [1, 0, 0, 0, 0],  # a
        [1, 1, 0, 0, 0],  # b
        [1, 1, 1, 0, 0],  # c
        [1, 1, 1, 1, 0],  # d
        [1, 1, 0, 0, 1],  # e: the prompt and itself
    ]


def test_tree_mask_with_a_window_by_hand() -> None:
    assert tree_mask(TREE, POSITIONS, 2).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 1, 0, 0, 1],  # e stands at position 2: b is one away, a two
    ]


def test_tree_mask_of_one_answer_is_causal() -> None:
    assert torch.equal(tree_mask(Tree(0, 3, (4,)), torch.arange(7), None), torch.ones(7, 7).tril().bool())


def test_attention_without_trees_is_refused() -> None:
    scorer = Scorer(model("llama"))
    with pytest.raises(RuntimeError, match=r"Scorer\.plain"):
        scorer.model(torch.tensor([[3, 4, 5]]))


@pytest.mark.parametrize("extra", ["s_aux", "position_bias"])
def test_what_trees_cannot_carry_is_refused(extra: str) -> None:
    q = torch.zeros(1, 1, 2, 4)
    trees = forward._Trees(collate([example(0, [3, 4], [5], [6])]))
    with pytest.raises(NotImplementedError, match="cannot be read as trees"):
        forward.tree_attention(nn.Identity(), q, q, q, None, trees=trees, **{extra: torch.zeros(1)})


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_generation_inside_plain(name: str) -> None:
    base = model(name)
    prompt = torch.tensor([numbers(9, "p", 60)])
    options = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(prompt)}
    wanted = copy.deepcopy(base).generate(prompt, **options)
    scorer = Scorer(base)
    with scorer.plain() as own:
        assert torch.equal(own.generate(prompt, **options), wanted)
    assert base.config._attn_implementation == forward.ATTENTION  # and back
    with torch.no_grad(), pytest.raises(ZeroDivisionError), scorer.plain():
        _ = 1 / 0
    assert base.config._attn_implementation == forward.ATTENTION
    assert scorer.packed


# ----------------------------------------------------------------------------------------------------------- probe


def layouts(examples: list[Example]) -> dict[str, Batch]:
    return {layout: collate(examples, layout=layout) for layout in LAYOUTS}


def test_probe_chooses_trees_where_they_are_exact() -> None:
    scorer = Scorer(model("mistral"))
    chosen = choose_layout(scorer, layouts(questions()), LAYOUTS)
    assert chosen.layout == "tree"
    assert scorer.packed
    assert choose_layout(scorer, layouts(questions()), ["packed", "padded"]).layout == "packed"


def ignore_positions(causal: Any) -> None:
    body = getattr(causal, causal.base_model_prefix)
    own = body.forward
    body.forward = lambda *args, position_ids=None, **kwargs: own(*args, **kwargs)


def test_probe_falls_back_with_its_reason() -> None:
    """Rotary angles are relative: without positions a whole (prompt, answer) is right, a second branch is not."""
    made = model("llama")
    ignore_positions(made)
    scorer = Scorer(made)
    layout, why = choose_layout(scorer, layouts(questions()), LAYOUTS)
    assert layout == "packed"
    assert why.startswith("tree: differs from the plain model by ")
    assert float(why.split(" by ")[1].split()[0]) > 1e-3
    assert "packed: differs from the plain model by" in why
    assert scorer.packed


def test_probe_falls_back_to_padding() -> None:
    """GPT-2's positions are absolute: only padded rows survive without them."""
    made = model("gpt2")
    ignore_positions(made)
    scorer = Scorer(made)
    assert choose_layout(scorer, layouts(questions()), LAYOUTS).layout == "padded"
    assert not scorer.packed
    assert made.config._attn_implementation == "sdpa"


def test_probe_survives_a_model_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, i: int, window: int | None, dtype: torch.dtype) -> Tensor:
        raise NotImplementedError("no trees today\nsecond line")

    monkeypatch.setattr(forward._Trees, "mask", refuse)
    chosen = choose_layout(Scorer(model("llama")), layouts(questions()), LAYOUTS)
    assert chosen.layout == "padded"
    assert chosen.why.startswith("tree: NotImplementedError: no trees today; packed: NotImplementedError: no trees")
    assert "second line" not in chosen.why


def test_probe_refuses_a_model_it_does_not_understand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_finish", lambda config, logits: 1.5 * logits)
    with pytest.raises(ModelError, match=r"LlamaForCausalLM: no layout gives .* tree: differs .* padded: differs"):
        choose_layout(Scorer(model("llama")), layouts(questions()), LAYOUTS)


def test_probe_notices_not_a_number() -> None:
    made = model("llama")
    scorer = Scorer(made)
    with torch.no_grad():
        made.model.norm.weight.fill_(math.nan)
    with pytest.raises(ModelError, match="nan nats"):
        choose_layout(scorer, layouts(questions()), LAYOUTS)


def test_probe_is_longer_than_the_window() -> None:
    assert probe_length(model("mistral").config, 512) == WINDOW + 16
    assert probe_length(model("mistral").config, 10) == 10
    assert probe_length(model("llama").config, 512) == 64
