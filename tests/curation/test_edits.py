"""edits: marks as FIGA's release sets them, an edit script as short as Levenshtein's, and training that reads them."""

from __future__ import annotations

import difflib
import gzip
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from _answers import GOLDEN
from grainline import rooms
from grainline.curate import curate
from grainline.curation._edits import changes
from grainline.curation._seam import Bench, Dropped
from grainline.data import columns
from grainline.errors import DataError
from grainline.runs import align
from grainline.types import AnswerTokens, Example

if TYPE_CHECKING:
    from _toy import Toy


def made(row: dict[str, Any], options: str = "") -> Any:
    with rooms.parse("curation", f"edits{options}").open(Bench(Path("unused"))) as step:
        (found,) = step([row])
    return found if isinstance(found, Dropped) else found[0]


def pair(initial: str, revised: str, **more: Any) -> dict[str, Any]:
    return {"id": "a", "prompt": "Why?", "chosen": revised, "rejected": initial} | more


def marked(row: dict[str, Any], side: str) -> list[str]:
    return [row[side][span["start"] : span["end"]] for span in row[f"{side}_spans"] if span["aspect"] == "edit"]


def test_by_hand() -> None:
    row = made(pair("It is 5, so stop now.", "It is 4, so do stop."))
    assert marked(row, "rejected") == ["5", "now"]
    assert marked(row, "chosen") == ["4", "do"]
    assert {span["score"] for span in row["chosen_spans"]} == {1.0}
    assert {span["score"] for span in row["rejected_spans"]} == {0.0}
    assert (row["edit_distance"], row["edit_share"]) == (3, round(3 / 8, 4))  # It is 5 , so stop now .
    assert row["curation"] == [{"step": "edits"}]


def test_the_release() -> None:
    """FIGA's own masks of its example, each id a word."""
    figa = GOLDEN["figa"]
    raw, revised = (
        [token for token in figa[f"{name}_labels"] if token not in (-100, figa["eos"])] for name in ("raw", "revised")
    )
    words = {"raw": [f"w{n}" for n in raw], "revised": [f"w{n}" for n in revised]}
    row = made(pair(" ".join(words["raw"]), " ".join(words["revised"])))
    masks = {
        "raw": [mark == -1 for mark in figa["mask_raw"][2:][: len(raw)]],
        "revised": [mark == 1 for mark in figa["mask_revised"][2:][: len(revised)]],
    }
    for name, side in (("raw", "rejected"), ("revised", "chosen")):
        found = " ".join(marked(row, side)).split()
        assert found == [word for word, mark in zip(words[name], masks[name], strict=True) if mark]


@pytest.mark.parametrize("seed", range(30))
def test_the_script_is_shortest_and_leaves_what_both_share(seed: int) -> None:
    """Against a distance written here, and Python's difflib: unmarked words read alike, and no script is shorter."""
    rng = random.Random(seed)
    initial = [rng.choice("abcdefgh") for _ in range(rng.randrange(1, 25))]
    revised = list(initial)
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(revised) + 1)
        revised[at : at + rng.randrange(2)] = rng.choices("abcdefgh", k=rng.randrange(3))
    old, new = " ".join(initial), " ".join(revised)
    found = changes(old, new)
    row = list(range(len(revised) + 1))
    for i, word in enumerate(initial):
        diagonal, row[0] = row[0], i + 1
        for j, other in enumerate(revised):
            diagonal, row[j + 1] = row[j + 1], min(row[j + 1] + 1, row[j] + 1, diagonal + (word != other))
    assert found.distance == row[-1]
    assert found.longest == max(len(initial), len(revised))
    left = [without(old, found.removed), without(new, found.added)]
    assert left[0] == left[1]
    codes = difflib.SequenceMatcher(None, initial, revised, autojunk=False).get_opcodes()
    assert found.distance <= sum(max(b - a, d - c) for kind, a, b, c, d in codes if kind != "equal")


def without(text: str, places: Any) -> list[str]:
    for start, stop in reversed(places):
        text = text[:start] + text[stop:]
    return text.split()


def tokens(answer: str, width: int) -> AnswerTokens:
    """Tokens of ``width`` characters, whatever the words, and an end-of-turn token."""
    offsets = [(n, min(n + width, len(answer))) for n in range(0, len(answer), width)]
    offsets.append((len(answer),) * 2)
    return AnswerTokens(tuple(range(len(offsets))), tuple(offsets), (7.0,) * len(offsets))


@pytest.mark.parametrize("width", [1, 3, 50])
def test_supervision_reads_the_marks_whatever_the_tokens(width: int) -> None:
    row = made(pair("It is 5, so stop now.", "It is 4, so do stop."))
    record = columns.record(row, where="a", id="a")
    example = Example(record, (1,), tuple(tokens(answer.text, width) for answer in record.answers))
    better, worse = rooms.parse("supervision", "edits:marks=kept")(example).answers
    for answer, side, weight in ((better, "chosen", 1.0), (worse, "rejected", 0.5)):
        spans = [(span["start"], span["end"]) for span in row[f"{side}_spans"]]
        for (start, stop), said in zip(answer.offsets[:-1], answer.weight[:-1], strict=True):
            touched = any({*range(start, stop)} & {*range(a, b)} for a, b in spans)
            assert said == weight * touched
    assert (better.weight[-1], worse.weight[-1]) == (1.0, 0.0)


def test_other_spans_stay_and_old_marks_go() -> None:
    human = {"start": 0, "end": 2, "type": "Irrelevant"}
    row = made(pair("It is 5.", "It is 4.", rejected_spans=[human], score_range=[1, 5]))
    again = made(row)
    for found in (row, again):
        assert found["rejected_spans"] == [human, {"start": 6, "end": 7, "aspect": "edit", "score": 1}]
        assert found["chosen_spans"] == [{"start": 6, "end": 7, "aspect": "edit", "score": 5}]
    chosen, rejected = columns.record(row, where="a", id="a").answers
    assert [(span.aspect, span.score) for span in (*chosen.spans, *rejected.spans)] == [
        ("edit", 1.0),
        ("Irrelevant", 0.0),
        ("edit", 0.0),
    ]


def test_rows_without_marks() -> None:
    assert made(pair("It is  5.", "It is\n5.")).why == "no word differs"
    turns = [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}] * 2
    talk = pair("x", "y") | {"prompt": [{"role": "user", "content": "p"}], "chosen": turns[:3]}
    assert made(talk).why == "an answer of several turns"
    with pytest.raises(DataError, match=r"a: edits lie between .*revise"):
        made({"id": "a", "prompt": "p", "completion": "c"})


def test_option_unit() -> None:
    row = made(pair("空気を下へ。", "空気を上へ。"), ":unit=characters")
    assert (marked(row, "rejected"), marked(row, "chosen"), row["edit_distance"]) == (["下"], ["上"], 1)
    assert marked(made(pair("空気を下へ。", "空気を上へ。")), "chosen") == ["空気を上へ"]


def test_option_most() -> None:
    row = pair("one two three four", "one two nine ten")
    assert made(row, ":most=0.5")["edit_share"] == 0.5
    assert made(row, ":most=0.49").why == "too much was changed"
    assert made(row)["edit_share"] == 0.5


def test_figa_trains_on_what_was_marked(toy: Toy, tmp_path: Path) -> None:
    """From two answers to a run: the runner writes the marks, training reads them, and its loss falls."""
    rows = [
        {
            "id": str(n),
            "prompt": f"tell me of the sea {n}",
            "chosen": "the sea is calm",
            "rejected": "the sea is not calm",
        }
        for n in range(8)
    ]
    marked = curate(rows, ["edits"], tmp_path / "marked.jsonl")
    assert marked.facts["made"][-1]["facts"] == {"marked": 8, "changed": pytest.approx(0.2)}
    choices = toy.choices(
        tmp_path / "run", data=str(marked.path), supervision="edits:marks=kept", objective="signed-sft", steps=2
    )
    found = align(**choices)
    losses = [line["loss"] for line in found.metrics if "loss" in line]
    assert len(losses) == 2
    assert losses[0] > losses[1]


@pytest.mark.real
def test_human_corrections(shared_data: Path) -> None:
    """Applying the script to what people corrected: outside the marks both texts read alike."""
    with gzip.open(shared_data / "qa_feedback" / "spans_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 73
    for row in rows:
        found = made(row)
        sides = [
            without(row[side], [(s["start"], s["end"]) for s in found[f"{side}_spans"] if s["aspect"] == "edit"])
            for side in ("rejected", "chosen")
        ]
        assert "".join(sides[0]) == "".join(sides[1])
        human = [span for span in found["rejected_spans"] if span["aspect"] != "edit"]
        assert human == row["rejected_spans"]
