"""What a reference keeps, against transformers' own hidden states and against a look at its modules by hand."""

from __future__ import annotations

import pytest
import torch

from _build import model, questions
from _truth import LAYOUTS
from grainline.data.collate import collate
from grainline.errors import ModelError
from grainline.forward import Scorer, parts
from grainline.forward.states import FAMILIES, by_row, once


def test_parts_of_needs() -> None:
    assert parts({"pairs", "reference"}) == ()
    assert parts({"kl", "reference_hidden"}) == ("hidden",)
    assert parts({"kl", "reference_layers"}) == ("layers",)  # the last of which is the final state
    assert parts({"kl", "reference_activations"}) == ("activations", "hidden")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_layers_are_transformers_hidden_states(name: str, layout: str) -> None:
    """Layers 1 to L where each answer token is predicted; the last of them is the state that the head reads."""
    scorer = Scorer(model(name, torch.float64), packed=layout != "padded")
    batch = collate(questions(), layout=layout)  # type: ignore[arg-type]
    with torch.no_grad():
        found = scorer(batch, keep=("layers",)).hidden
        final = scorer(batch, keep=("hidden",)).hidden
        with scorer.plain() as own:
            for row, (e, side) in enumerate((e, side) for side in (0, 1) for e in questions()):
                ids = torch.tensor([e.prompt + e.answers[side].ids])
                states = own(ids, output_hidden_states=True, use_cache=False).hidden_states[1:]
                here = slice(len(e.prompt) - 1, ids.shape[1] - 1)
                truth = torch.stack([state[0, here] for state in states], 1)
                assert torch.allclose(found[row, : len(truth)], truth, rtol=0, atol=1e-5)
                assert not found[row, len(truth) :].any()
    assert torch.allclose(final[:, :, 0], found[:, :, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_states_after_chosen_layers_without_the_rest(name: str, layout: str) -> None:
    """The same numbers as of all layers, in the order asked for; no layer above, no hook left behind, no head."""
    scorer = Scorer(model(name, torch.float64), packed=layout != "padded")
    batch = collate(questions(), layout=layout)  # type: ignore[arg-type]
    with torch.no_grad():
        every = scorer(batch, keep=("layers",)).hidden
        depth = every.shape[2]
        read = by_row(batch, scorer.states(batch, (depth, 1)))
        assert torch.allclose(read, every[:, :, [depth - 1, 0]], rtol=0, atol=1e-12)
        called: list[str] = []
        layers = next(
            child
            for child in getattr(scorer.causal, scorer.causal.base_model_prefix).children()
            if isinstance(child, torch.nn.ModuleList)
        )
        handles = [
            layers[1].register_forward_hook(lambda *_: called.append("above")),
            scorer.causal.lm_head.register_forward_hook(lambda *_: called.append("head")),
        ]
        hooks = len(layers[0]._forward_hooks)  # transformers has one of its own
        low = by_row(batch, scorer.states(batch, (1,)))
        assert torch.allclose(low[:, :, 0], every[:, :, 0], rtol=0, atol=1e-12)
        assert called == []
        assert len(layers[0]._forward_hooks) == hooks
        for handle in handles:
            handle.remove()


def test_activations_are_means_of_what_the_modules_give() -> None:
    scorer = Scorer(model("llama", torch.float64))
    batch = collate(questions())
    with torch.no_grad():
        said = scorer(batch, keep=("activations", "hidden"))
        e = questions()[3]
        ids = torch.tensor([e.prompt + e.answers[0].ids])
        seen = {}
        layer = scorer.causal.model.layers[1]
        watched = {
            "act": layer.mlp.act_fn,
            "k": layer.self_attn.k_proj,
            "layer": layer,
            "norm": scorer.causal.model.norm,
        }
        handles = [
            module.register_forward_hook(
                lambda m, i, o, name=name: seen.update({name: o[0] if isinstance(o, tuple) else o})
            )
            for name, module in watched.items()
        ]
        with scorer.plain() as own:
            logits = own(ids, use_cache=False).logits
    for handle in handles:
        handle.remove()
    assert said.activations is not None
    table = said.activations[3, : len(e.answers[0].ids)]  # (T, F, K) of the chosen answer of the last pair
    here = slice(len(e.prompt) - 1, ids.shape[1] - 1)
    count = dict(zip(FAMILIES, said.activations[3, 0].isfinite().sum(-1).tolist(), strict=True))
    # Of each of the two layers: q, k, v, o; the nonlinearity; what goes into and out of both norms, both branches'
    # results and the sum. Beside them the embedding and the final norm.
    assert count == {"mlp": 2, "attn": 2 * 4, "resid": 2 * 7 + 2, "logits": 1}
    for family, value in (("mlp", "act"), ("attn", "k"), ("resid", "layer"), ("resid", "norm")):
        mean = seen[value][0, here].mean(-1)
        column = table[:, FAMILIES.index(family)]
        assert (column - mean[:, None]).abs().nan_to_num(nan=9).amin(-1).max() < 1e-5, value
    assert torch.allclose(table[:, 3, 0], logits[0, here].mean(-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["qwen3", "gemma3", "phi", "gpt2", "cohere"])
def test_every_family_is_found_in_other_architectures(name: str) -> None:
    with torch.no_grad():
        table = Scorer(model(name))(collate(questions()), keep=("activations",)).activations
    assert (table[0, 0].isfinite().sum(-1) > 0).all()


def test_a_body_without_layers_is_refused() -> None:
    scorer = Scorer(model("llama"))
    scorer.causal.model.layers = torch.nn.ModuleList()
    with pytest.raises(ModelError, match="layers are not found"), torch.no_grad():
        scorer(collate(questions()), keep=("activations",))


def test_rows_and_back() -> None:
    batch = collate(questions())
    value = torch.arange(3.0 * len(batch.target)).view(-1, 3)
    rows = by_row(batch, value)
    assert rows.shape == (*batch.rows.shape, 3)
    assert not rows[batch.rows < 0].any()
    assert torch.equal(once(batch, rows), value)
