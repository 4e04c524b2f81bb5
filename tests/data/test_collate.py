"""Layouts by hand, and how a step is cut into forwards."""

from __future__ import annotations

import hashlib
import math
import struct
from itertools import chain

import pytest
import torch

from _build import example, judged, many, numbers
from grainline.data.collate import Layout, aspect_levels, collate, content_key, pack, speaking, tokens
from grainline.errors import RecipeError
from grainline.types import Answer, Batch, Example, Pairs, Rows, Span, Tree

PROMPT = (1, 2, 3)
TWO = [  # one prompt, three distinct answers: the chosen one is shared
    example("x", PROMPT, (4, 5, 9), (6, 9), weights=[(1, 0.5, 1), (1, 1)], weight=2.0, margin=0.7),
    example("y", PROMPT, (4, 5, 9), (7, 8, 9), weights=[(1, 2, 3), (1, 1, 1)]),
]


def said(batch: Batch) -> list[list[int]]:
    """The answer tokens of each row, read through the indices."""
    return [[int(batch.target[i]) for i in row if i >= 0] for row in batch.rows]


def context(batch: Batch, row: int) -> list[int]:
    """Tokens that stand where row's answer tokens are predicted."""
    flat = batch.ids.flatten()
    return [int(flat[batch.source[i]]) for i in batch.rows[row] if i >= 0]


def test_tree_by_hand() -> None:
    batch = collate(TWO)
    #                     prompt   | 4 5 (9) | 6 (9) | 7 8 (9): the last token of an answer predicts nothing
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 3, 3, 4]]
    assert batch.trees == (Tree(0, 3, (2, 1, 2)),)
    assert batch.trees[0].stop == 8
    assert batch.source.tolist() == [2, 3, 4, 2, 5, 2, 6, 7]  # the first token of each answer: at the prompt's end
    assert batch.target.tolist() == [4, 5, 9, 6, 9, 7, 8, 9]
    assert batch.rows.tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, -1], [5, 6, 7]]  # chosen x, y; rejected x, y
    # The shared answer stands once, and yet speaks with each row's own loudness.
    assert batch.weight.tolist() == [[1, 0.5, 1], [1, 2, 3], [1, 1, 0], [1, 1, 1]]
    assert isinstance(batch.facts, Pairs)
    assert batch.facts.ids == ("x", "y")
    assert batch.facts.weight.tolist() == [2.0, 1.0]
    assert batch.facts.margin[0] == pytest.approx(0.7)
    assert math.isnan(batch.facts.margin[1])
    assert len(batch.keys) == 4
    assert batch.keys[0] == batch.keys[1] != batch.keys[2]


def test_second_tree_begins_where_the_first_ends() -> None:
    batch = collate([*TWO, example("z", (7,), (8, 9), (9,))])
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 7, 8]]
    assert batch.positions.tolist()[0][8:] == [0, 1]
    assert batch.trees == (Tree(0, 3, (2, 1, 2)), Tree(8, 1, (1, 0)))  # an answer of one token has no input at all
    assert said(batch) == [[4, 5, 9], [4, 5, 9], [8, 9], [6, 9], [7, 8, 9], [9]]
    assert context(batch, 5) == [7]


def test_packed_by_hand() -> None:
    batch = collate(TWO, layout="packed")
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5, 1, 2, 3, 6, 1, 2, 3, 7, 8]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 3, 4]]
    assert batch.trees == (Tree(0, 3, (2,)), Tree(5, 3, (1,)), Tree(9, 3, (2,)))
    assert batch.source.tolist() == [2, 3, 4, 7, 8, 11, 12, 13]
    assert batch.rows.tolist() == collate(TWO).rows.tolist()


def test_padded_by_hand() -> None:
    batch = collate(TWO, layout="padded")
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 6, 0], [1, 2, 3, 7, 8]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert batch.trees == ()
    assert batch.source.tolist() == [2, 3, 4, 5 + 2, 5 + 3, 10 + 2, 10 + 3, 10 + 4]
    assert batch.target.tolist() == collate(TWO).target.tolist()


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_every_row_says_its_answer_after_its_context(layout: Layout) -> None:
    examples = many(9, prompts=4)
    batch = collate(examples, layout=layout)
    rows = [(e, e.answers[side]) for side in (0, 1) for e in examples]
    assert said(batch) == [list(answer.ids) for _, answer in rows]
    for b, (e, answer) in enumerate(rows):
        assert context(batch, b) == [e.prompt[-1], *answer.ids[:-1]]
    assert batch.ids.numel() == tokens(examples, layout)


def test_rows_of_other_objectives() -> None:
    labelled = [example("good", PROMPT, (4, 9), label=True), example("bad", PROMPT, (5, 9), label=False)]
    batch = collate(labelled, rows="labels")
    assert isinstance(batch.facts, Rows)
    assert (batch.facts.ids, batch.facts.label.tolist()) == (("good", "bad"), [True, False])
    assert said(collate(labelled, rows="chosen")) == [[4, 9]]
    assert collate(labelled, rows="chosen").ids.tolist() == [[1, 2, 3, 4]]  # nobody reads the bad answer
    both = collate(TWO, rows="labels")  # of a pair the chosen answer is desirable, the rejected one is not
    assert said(both) == [[4, 5, 9], [6, 9], [4, 5, 9], [7, 8, 9]]
    assert isinstance(both.facts, Rows)
    assert both.facts.label.tolist() == [True, False, True, False]
    assert both.facts.ids == ("x", "x", "y", "y")
    assert both.facts.weight.tolist() == [2.0, 2.0, 1.0, 1.0]
    assert said(collate(TWO, rows="chosen")) == [[4, 5, 9], [4, 5, 9]]


@pytest.mark.parametrize(
    ("needs", "rows"),
    [
        ({"pairs", "reference"}, "pairs"),
        ({"labels", "reference"}, "labels"),
        ({"reference"}, "chosen"),
        (set(), "chosen"),
    ],
)
def test_rows_an_objective_sees(needs: set[str], rows: str) -> None:
    assert speaking(needs) == rows


def test_content_key_is_of_both_sequences() -> None:
    written = struct.pack("3q", 1, 2, 3) + b"|" + struct.pack("2q", 4, 9)
    assert content_key((1, 2, 3), (4, 9)) == hashlib.sha256(written).hexdigest()
    assert content_key((1, 2), (3, 4)) != content_key((1, 2, 3), (4,))  # the seam counts


def test_to_moves_every_tensor() -> None:
    batch = collate(TWO).to("meta")
    tensors = [v for part in (batch, batch.facts) for v in part if isinstance(v, torch.Tensor)]
    assert len(tensors) == 10
    assert {t.device.type for t in tensors} == {"meta"}
    assert batch.trees == collate(TWO).trees


def test_numbers_reach_the_batch_and_are_nan_where_a_row_has_none() -> None:
    first, second = TWO[0], TWO[1]
    first = first._replace(record=first.record._replace(numbers=(("doubt", 0.5),)))
    second = second._replace(record=second.record._replace(numbers=(("doubt", 2.0), ("other", 1.0))))
    facts = collate([first, second]).facts
    assert isinstance(facts, Pairs)
    assert facts.columns == ("doubt", "other")
    assert facts.number("doubt").tolist() == [0.5, 2.0]
    assert facts.number("other").isnan().tolist() == [True, False]
    assert facts.number("nobody").isnan().all()


def test_segments_and_scores_reach_the_batch() -> None:
    one = example(0, [3, 4], [5, 6, 7], [8])
    chosen, rejected = one.answers
    fine = one._replace(
        answers=(chosen._replace(segment=(0, 1, 1), score=(0.5, 1.0)), rejected._replace(segment=(0,), score=(0.25,)))
    )
    batch = collate([fine])
    assert batch.segment is not None
    assert batch.score is not None
    assert batch.segment.tolist() == [[0, 1, 1], [0, -1, -1]]
    assert batch.score[0].tolist() == [0.5, 1.0]
    assert batch.score[1, 0] == 0.25
    assert batch.score[1, 1].isnan()
    said = batch.logprobs(torch.zeros(2, 3, dtype=torch.float64))
    assert said.score is not None
    assert said.score.dtype == said.weight.dtype == torch.float64
    assert said.segment is batch.segment
    assert collate([one]).segment is None


def test_whole_numbers_in_the_first_row_cut_no_weights() -> None:
    one = example(0, [3], [5, 6], [7, 8], weights=[[1, 1], [0.5, 0.25]])
    assert collate([one]).weight.tolist() == [[1.0, 1.0], [0.5, 0.25]]
    assert collate([one]).weight.dtype == torch.float32


def test_aspect_levels_count_unjudged_text_as_neutral() -> None:
    text = "x" * 10
    wrong = Answer(text, (Span(0, 4, "truth", 0.0),))
    assert aspect_levels(wrong) == {"truth": pytest.approx((4 * 0.0 + 6 * 0.5) / 10)}
    assert aspect_levels(Answer(text, (Span(0, 10, "a", 0.25), Span(0, 5, "b", 1.0), Span(5, 10, "b", 0.0)))) == {
        "a": 0.25,
        "b": 0.5,
    }
    assert aspect_levels(Answer(text, (Span(0, 10, "", 1.0),))) == {}  # no aspect is named


def test_who_is_better_in_which_aspect() -> None:
    """An answer without a judgement stands against neutral text."""
    rows = [
        judged(example(0, [3], [4], [5]), [("a", 1.0), ("b", 0.25)], [("a", 0.0), ("b", 0.75)]),
        judged(example(1, [3], [4], [6]), [("b", 0.5)], [("c", 0.1)]),
    ]
    facts = collate(rows).facts
    assert isinstance(facts, Pairs)
    assert facts.aspects == ("a", "b", "c")
    assert facts.better is not None
    assert facts.better.tolist() == [[1, -1, 0], [0, 0, 1]]
    assert [aspect for aspect, _ in facts.by_aspect()] == ["a", "b", "c"]


# ------------------------------------------------------------------------------------------------------------ pack


def ids(forwards: list[list[Example]]) -> list[list[str]]:
    return [[e.record.id for e in part] for part in forwards]


def test_tokens_by_hand() -> None:
    assert tokens(TWO, "tree") == 3 + 2 + 1 + 2
    assert tokens(TWO, "packed") == (3 + 2) + (3 + 1) + (3 + 2)
    assert tokens(TWO, "padded") == 3 * 5


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
@pytest.mark.parametrize("budget", [40, 90, 10_000])
def test_budget_is_kept_and_no_row_lost(layout: Layout, budget: int) -> None:
    examples = many(30)
    forwards = pack(examples, max_tokens=budget, layout=layout)
    assert sorted(chain.from_iterable(ids(forwards))) == sorted(e.record.id for e in examples)
    for part in forwards:
        assert tokens(part, layout) <= budget or len(part) == 1
        assert collate(part, layout=layout).ids.numel() == tokens(part, layout)
    assert len(forwards) > 1 or budget == 10_000
    assert ids(forwards) == ids(pack(examples, max_tokens=budget, layout=layout))


def test_prompts_stay_together_while_they_fit() -> None:
    examples = many(24, prompts=6)
    largest = max(tokens([e for e in examples if e.prompt == p.prompt]) for p in examples)
    forwards = pack(examples, max_tokens=largest)
    assert len(forwards) > 1
    for prompt in {e.prompt for e in examples}:
        assert sum(any(e.prompt == prompt for e in part) for part in forwards) == 1
    # Below that the group is cut, but the rows of a piece still share the prompt.
    assert len(pack([e for e in examples if e.prompt == examples[0].prompt], max_tokens=largest // 2)) > 1


def test_an_example_over_the_budget_stands_alone() -> None:
    giant = example("giant", numbers(50, 1), (4, 9), (5, 9))
    forwards = pack([*TWO, giant], max_tokens=10)
    assert ["giant"] in ids(forwards)
    assert ["x", "y"] in ids(forwards)


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 7])
def test_parts(parts: int) -> None:
    examples = many(7, prompts=2)
    forwards = pack(examples, max_tokens=10_000, parts=parts)
    assert len(forwards) >= parts
    assert all(forwards)
    assert sorted(chain.from_iterable(ids(forwards))) == sorted(e.record.id for e in examples)


def test_parts_share_the_work() -> None:
    examples = many(40, prompts=40)
    sizes = [tokens(part) for part in pack(examples, max_tokens=10_000, parts=2)]
    assert max(sizes) < 0.6 * sum(sizes)


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("share", [1, 3])
def test_each_part_has_as_many_forwards_and_as_much_work(layout: Layout, parts: int, share: int) -> None:
    """Rows that would fit into ``share`` forwards a process with a tenth to spare are no more than that."""
    examples = many(60, prompts=60)
    whole = sum(tokens([e], layout) for e in examples)
    budget = int(1.1 * whole / parts / share)
    # Beside longer rows padded ones grow, so that the tenth is not enough.
    wanted = parts * share if layout != "padded" else parts * (share + 1)
    forwards = pack(examples, max_tokens=budget, layout=layout, parts=parts)
    assert len(forwards) == wanted
    assert sorted(chain.from_iterable(ids(forwards))) == sorted(e.record.id for e in examples)
    assert max(tokens(part, layout) for part in forwards) <= budget
    work = [sum(tokens(part, layout) for part in forwards[k::parts]) for k in range(parts)]
    assert max(work) < 1.05 * sum(work) / parts


def test_parts_by_hand() -> None:
    """Rows of 5, 5 and 4 tokens for two processes: into 7 each goes one only, and there were three forwards; 9 is the
    least that makes two."""
    rows = [example(f"row {n}", [n], [1] * size, [2]) for n, size in enumerate((5, 5, 4))]
    assert [tokens([row]) for row in rows] == [5, 5, 4]
    assert ids(pack(rows, max_tokens=100, parts=2)) == [["row 0", "row 2"], ["row 1"]]
    # Two forwards each: who has the largest of the first round has the smallest of the second.
    more = [example(f"row {n}", [n], [1] * size, [2]) for n, size in enumerate((9, 8, 7, 6))]
    assert ids(pack(more, max_tokens=10, parts=2)) == [["row 0"], ["row 1"], ["row 3"], ["row 2"]]


def test_fewer_rows_than_processes() -> None:
    with pytest.raises(RecipeError, match=r"batch_size: a step of 2 rows cannot be shared by 3 processes"):
        pack(TWO, max_tokens=100, parts=3)
