"""PAPEFT: what is read at each place, what is read without it, and the way from a marker in the data to an answer."""

from __future__ import annotations

import copy
import warnings
from math import tanh
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from _toy import jsonl
from grainline import contract, conversation, engine, export, models, rooms
from grainline import recipe as recipes
from grainline.adapters._seam import attach, attach_shapes, tagged
from grainline.adapters.papeft import PAPEFT
from grainline.data import collate
from grainline.errors import DataError, ModelError, RecipeError
from grainline.forward import Scorer
from grainline.generation import Manner
from grainline.prepare import prepare
from grainline.runs import align
from grainline.types import Answer, AnswerTokens, Example, Record

if TYPE_CHECKING:
    from _toy import Toy

MARK = "<|endoftext|>"  # token 0 of the toy's tokenizer, which its template never writes


def change_of(model: Any, name: str = "default") -> Any:
    return model.get_input_embeddings().changes[name]


def moved(adapter: PAPEFT, model: Any) -> Any:
    """With an adapter that is nowhere at its start."""
    wrapped = attach(adapter, model).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for one in tagged(adapter, wrapped):
            one.tensor.add_(0.3 * torch.randn(one.tensor.shape))
    return wrapped


def logits(model: Any, *ids: int) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


# ------------------------------------------------------------------------------------------------------ mathematics


def test_a_place_is_read_as_the_separator_moved(tiny_llama: Any) -> None:
    """Width 1, so that each number can be written out: W1 = 2, b1 = 0.1, E = (0.5, -1)."""
    model = attach(PAPEFT(marker=3, locations=2, width=1), tiny_llama)
    change, separator = change_of(model), tiny_llama.get_input_embeddings().base_layer.weight[3]
    with torch.no_grad():
        change.papeft_E[:] = torch.tensor([[0.5], [-1.0]])
        change.papeft_W1.fill_(2.0)
        change.papeft_b1.fill_(0.1)
        change.papeft_W2[0], change.papeft_W2[1], change.papeft_b2[1] = 1.0, -3.0, 0.25
    read = model.get_input_embeddings()(torch.tensor([[2**24, 7, 2**24 + 1]]))[0] - torch.stack(
        [separator, tiny_llama.get_input_embeddings().base_layer.weight[7], separator]
    )
    places = [tanh(2 * 0.5 + 0.1), tanh(2 * -1 + 0.1)]
    expected = torch.zeros(3, 32)
    expected[0, :2] = torch.tensor([places[0], -3 * places[0] + 0.25])
    expected[2, :2] = torch.tensor([places[1], -3 * places[1] + 0.25])
    assert torch.allclose(read, expected, atol=1e-6)


def test_documents_at_different_places_get_different_separators(tiny_llama: Any) -> None:
    adapter = PAPEFT(marker=3, locations=4, width=8)
    model = moved(adapter, tiny_llama)
    vectors = model.get_input_embeddings()(torch.tensor(adapter.placed((3, 40, 3, 40, 3, 40, 3, 40)))).detach()
    assert torch.equal(vectors[1], vectors[3])  # the document itself is what it was
    assert torch.pdist(vectors[::2]).min() > 0.1


def test_only_the_places_that_were_read_learn(tiny_llama: Any) -> None:
    adapter = PAPEFT(marker=3, locations=4, width=8)
    model = moved(adapter, tiny_llama)
    model(input_ids=torch.tensor([adapter.placed((3, 40, 3, 41))])).logits.square().sum().backward()
    assert change_of(model).papeft_E.grad.norm(dim=1).gt(0).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("hidden", "expected"), [(4096, 547_456), (576, 93_376)])
def test_parameters_of_20_places(hidden: int, expected: int) -> None:
    """K d + d d + d + h d + h for K = 20, d = 128."""
    config = LlamaConfig(hidden_size=hidden, intermediate_size=8, num_hidden_layers=1, vocab_size=64)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert contract.count(tagged(PAPEFT(), attach_shapes(PAPEFT(), model))) == expected
    assert expected == 20 * 128 + 128 * 128 + 128 + hidden * 128 + hidden


# --------------------------------------------------------------------------------------------- off, merged, refused


def test_fresh_and_off_are_the_separator(tiny_llama: Any) -> None:
    adapter, plain = PAPEFT(marker=3), copy.deepcopy(tiny_llama)
    expected = logits(plain, 1, 3, 40, 3, 41, 9)
    placed = adapter.placed((1, 3, 40, 3, 41, 9))
    adapter.readied(plain)
    assert torch.equal(logits(plain, *placed), expected)  # the reference
    assert torch.equal(logits(attach(adapter, copy.deepcopy(plain)), *placed), expected)
    model = moved(adapter, plain)
    assert not torch.allclose(logits(model, *placed), expected, atol=1e-2)
    with model.disable_adapter():
        assert torch.equal(logits(model, *placed), expected)


def test_a_merged_table_says_the_same(tiny_llama: Any, tmp_path: Path) -> None:
    """Places are reserved tokens 60 to 79 here: a plain model has rows for them, one that was written and read too."""
    model = moved(PAPEFT(marker=3, first=60), copy.deepcopy(tiny_llama))
    placed = PAPEFT(marker=3, first=60).placed((1, 3, 40, 3, 41, 9))
    plain = export.merged(model)
    assert type(plain.get_input_embeddings()) is nn.Embedding
    assert torch.allclose(logits(plain, *placed), logits(model, *placed), atol=1e-5)
    before, after = tiny_llama.get_input_embeddings().weight, plain.get_input_embeddings().weight
    assert (before != after).any(1).nonzero().flatten().tolist() == list(range(60, 80))
    export.write_merged(model, tmp_path / "merged", tokenizer=None, ids=[1, 60, 40, 61, 41, 9])
    again = LlamaForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(again, *placed), logits(model, *placed), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "tied", "why"),
    [({}, False, "beyond the model's table"), ({"first": 60}, True, "the output head is the same table")],
)
def test_merging_is_refused_with_the_reason(options: dict[str, Any], tied: bool, why: str) -> None:
    config = LlamaConfig(
        hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=96,
        tie_word_embeddings=tied,
    )  # fmt: skip
    with warnings.catch_warnings(action="error", category=UserWarning):  # PEFT's, of a table that the head shares
        model = attach(PAPEFT(marker=3, **options), LlamaForCausalLM(config))
    with pytest.raises(ModelError, match=why):
        export.merged(model)
    with pytest.raises(ModelError):
        export.as_lora.as_lora(model)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"marker": 96}, "tokens 0 to 95, and no 96"),
        ({"first": 90}, "added ids 90 to 109 do not fit a table of 96 rows"),
        ({"first": 60, "marker": 70}, "with the separator 70"),
    ],
)
def test_ids_that_do_not_fit_are_refused(options: dict[str, Any], why: str, tiny_llama: Any) -> None:
    with pytest.raises(ModelError, match=why):
        PAPEFT(**options).config(tiny_llama)


def test_what_reads_no_ids_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear reads no token ids"):
        PAPEFT().config(nn.Linear(2, 2))


def test_every_layout_says_the_same(tiny_llama: Any) -> None:
    """Several prompts in a packed row: places are counted in each from its beginning."""
    adapter = PAPEFT(marker=3, locations=4, width=8)
    answers = tuple(AnswerTokens(ids, ((0, 0),) * 2, (1.0, 1.0)) for ids in ((50, 2), (51, 2)))
    record = Record("0", "", (Answer(""), Answer("")))
    rows = [
        Example(record._replace(id=str(n)), adapter.placed(ids), answers)
        for n, ids in enumerate([(1, 3, 40, 3, 41), (1, 3, 41, 3, 40, 3, 44), (1, 9)])
    ]
    model = moved(adapter, tiny_llama)
    found = {}
    for layout in ("tree", "packed", "padded"):
        batch = collate.collate(rows, rows="pairs", layout=layout)
        with torch.no_grad():
            found[layout] = Scorer(model, packed=layout != "padded")(batch).token
    assert torch.allclose(found["tree"], found["padded"], atol=1e-4)
    assert torch.allclose(found["packed"], found["padded"], atol=1e-4)


# ---------------------------------------------------------------------------------------------------------- options


def test_option_marker(tiny_llama: Any) -> None:
    assert PAPEFT(marker=5).placed((3, 5, 5)) == (3, 2**24, 2**24 + 1)
    read = attach(PAPEFT(marker=5), tiny_llama).get_input_embeddings()(torch.tensor([2**24, 5]))
    assert torch.equal(read[0], read[1])


def test_option_locations() -> None:
    assert PAPEFT(locations=2).placed((0, 7, 0)) == (2**24, 7, 2**24 + 1)
    with pytest.raises(DataError, match=r"row 4: the prompt has 3 separators \(token 0\) for 2 places"):
        PAPEFT(locations=2).placed((0, 7, 0, 0), "row 4")


def test_option_tokens(tiny_llama: Any) -> None:
    """Two in a row share the embedding of their place, and have vectors of their own."""
    adapter = PAPEFT(marker=3, locations=2, tokens=2, width=8)
    shifts = change_of(moved(adapter, tiny_llama)).shifts()
    assert shifts.shape == (4, 32)
    change = change_of(tiny_llama)
    hidden = torch.tanh(change.papeft_E[1] @ change.papeft_W1.T + change.papeft_b1)
    second = hidden @ change.papeft_W2[32:].T + change.papeft_b2[32:]
    assert torch.allclose(shifts[3], second, atol=1e-6)
    with pytest.raises(DataError, match=r"has 3 separators .* not 2 for each document"):
        adapter.placed((3, 3, 40, 3, 41))


def test_option_width(tiny_llama: Any) -> None:
    assert change_of(attach(PAPEFT(width=5), tiny_llama)).papeft_E.shape == (20, 5)


def test_option_first() -> None:
    assert PAPEFT(first=60).placed((0, 7, 0)) == (60, 7, 61)


# ----------------------------------------------------------------------------------------------------- from the data


def documents(count: int) -> list[dict[str, str]]:
    """Pairs over two marked documents."""
    things = ["sky", "sea", "cat", "sun", "mat"]
    return [
        {
            "prompt": f"tell me of{MARK}the {things[i % 5]} {i}{MARK}the {things[(i + 2) % 5]}:",
            "chosen": " glad warm",
            "rejected": " cold rude",
        }
        for i in range(count)
    ]


@pytest.fixture
def marked(toy: Toy, tmp_path: Path) -> dict[str, Any]:
    """Arguments of a short run on documents."""
    data, test = jsonl(tmp_path / "docs.jsonl", documents(24)), jsonl(tmp_path / "test.jsonl", documents(30)[24:])
    more = {"adapter": "papeft:width=16", "evaluation": {"data": {"test": test}, "samples": 1}, "data": data}
    return toy.choices(tmp_path / "run", **more, steps=12, optimizer="adamw:lr=3e-2")


def test_prepared_prompts_hold_places(toy: Toy, marked: dict[str, Any]) -> None:
    def prompt(adapter: str) -> tuple[int, ...]:
        recipe = recipes.load({"model": toy.model, "data": marked["data"], "adapter": adapter})
        return prepare(recipe, models.load_tokenizer(toy.model)).train[0].prompt

    plain, placed = prompt("lora"), prompt("papeft")
    assert plain.count(0) == 2
    assert placed == rooms.parse("adapters", "papeft").placed(plain) != plain
    with pytest.raises(RecipeError, match="no prompt has anything that papeft:marker=1 reads"):
        prompt("papeft:marker=1")
    with pytest.raises(DataError, match="2 separators"):
        prompt("papeft:locations=1")


def test_a_run_starts_at_its_reference_and_learns(marked: dict[str, Any]) -> None:
    run = align(**marked)
    assert run.before()["eval_test_rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert run.metrics[-1]["eval_test_rewards/margins"] > 0.1
    again = run.evaluate({"test": marked["evaluation"]["data"]["test"]})["test"]
    assert again["rewards/margins"] == pytest.approx(run.metrics[-1]["eval_test_rewards/margins"], abs=1e-4)
    further = {"model": {"name": marked["model"], "adapter": str(run.adapter)}, "out": marked["out"] + "-2"}
    with pytest.raises(ModelError, match="nothing places in the prompts"):
        align(**marked | further | {"adapter": "lora"})


def test_references_of_two_separators_are_two(toy: Toy, marked: dict[str, Any]) -> None:
    config = models.load(toy.model).model.config
    told = {
        engine._digest(config, recipes.load({"model": toy.model, "data": marked["data"], "adapter": adapter}))
        for adapter in ("lora", "papeft", "papeft:marker=1", "papeft:width=3")
    }
    assert len(told) == 3  # the width changes no reference


def test_a_conversation_is_placed_too(toy: Toy) -> None:
    tokenizer, turns = models.load_tokenizer(toy.model), ({"role": "user", "content": f"{MARK}sky{MARK}sea"},)
    how: dict[str, Any] = {"window": 512, "manner": Manner(8)}
    plain = conversation.asked(tokenizer, turns, **how).ids
    assert conversation.asked(tokenizer, turns, **how, place=PAPEFT().placed).ids == PAPEFT().placed(plain) != plain
