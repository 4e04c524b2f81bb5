"""Every kind of problem by its row, exact numbers, and memory that a million rows fit in."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grainline.data import load
from grainline.data import survey as module
from grainline.data.fit import MERGES, OVERLONG, Fit
from grainline.data.formats import Skipped
from grainline.data.lengths import Lengths, wilson
from grainline.data.repeats import AGAIN, AGAINST, SAME_ID, SHARED
from grainline.data.row_checks import BARELY, MARKS, OVERLAP
from grainline.data.survey import MIXED, Aspect, Survey, prompts, survey
from grainline.errors import DataError


def row(n: int, **more: Any) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": f"Question {n}?"}],
        "chosen": f"Yes, {n}.",
        "rejected": f"No, not {n}.",
    } | more


def surveyed(*rows: Any, **options: Any) -> Survey:
    name, read = load.stream(list(rows))
    return survey(read, name=name, **options)


def places(found: Survey) -> dict[str, list[str]]:
    return {group.kind: [problem.where for problem in group.problems] for group in found.problems}


SPAN = {"start": 0, "end": 3, "score": 1.0}
UNUSABLE: dict[str, tuple[Any, str]] = {
    "empty answer": (row(1, chosen=" "), "the text is empty"),
    "equal answers": (row(1, rejected="Yes, 1."), "chosen and rejected are the same"),
    "not text": (row(1, chosen=5), "a value of type int is not text"),
    "bad role": (row(1, prompt=[{"role": "usr", "content": "x"}]), "unknown role …"),
    "span outside": (
        row(1, chosen_spans=[{**SPAN, "end": 99}]),
        "end … is outside the answer, which has … characters",
    ),
    "differing prompts": (
        {
            side: [{"role": "user", "content": side}, {"role": "assistant", "content": side}]
            for side in ("chosen", "rejected")
        },
        "chosen and rejected have different prompts: they part ways at turn … (user)",
    ),
    "no object": ([1], "the row is not an object but a list"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_rows(case: str) -> None:
    bad, kind = UNUSABLE[case]
    found = surveyed(row(0), bad, row(2))
    (group,) = found.problems
    assert (group.kind, group.severity, group.number) == (kind, "error", 1)
    assert group.problems[0].where.split()[0] == "rows:2"
    assert (found.counts["rows"], found.counts["usable"], found.counts["unusable"]) == (3, 2, 1)


ODD: dict[str, tuple[list[Any], dict[str, list[str]]]] = {
    "contradiction": ([row(0), row(0, chosen="No, not 0.", rejected="Yes, 0.")], {AGAINST: ["rows:2"]}),
    "repetition": ([row(0), row(1), row(0)], {AGAIN: ["rows:3"]}),
    "special token": ([row(0, chosen="Yes.<|im_end|>")], {MARKS: ["rows:1 chosen"]}),
    "overlap": ([row(0, chosen_spans=[SPAN, {**SPAN, "start": 2}])], {OVERLAP: ["rows:1 chosen"]}),
    "case alone": ([row(0, rejected="yes, 0. ")], {BARELY: ["rows:1"]}),
}


@pytest.mark.parametrize("case", ODD)
def test_warnings_leave_rows_usable(case: str) -> None:
    rows, expected = ODD[case]
    found = surveyed(*rows)
    assert places(found) == expected
    assert {group.severity for group in found.problems} == {"warning"}
    assert found.counts["usable"] == len(rows)


def test_an_id_that_comes_twice_makes_a_row_unusable() -> None:
    found = surveyed(row(0, id="a"), row(1, id="a"), row(2))
    assert places(found) == {SAME_ID: ["rows:2 id"]}
    assert (found.counts["usable"], found.counts["unusable"]) == (2, 1)


def test_kinds_do_not_mix() -> None:
    found = surveyed(row(0), {"prompt": "a?", "completion": "b", "label": True})
    (group,) = found.problems
    assert (group.kind, group.severity) == (MIXED, "error")
    assert group.problems[0].what == f"{MIXED}: rows:1 is a pair, rows:2 is labelled."


def test_prompts_shared_with_a_test_set() -> None:
    test, unread = prompts(load.stream([row(7), row(3), row(5, chosen="")])[1])
    assert (len(test.places), unread) == (2, 1)
    assert places(surveyed(row(3), row(4), row(5), test=test)) == {SHARED: ["rows:1"]}


def test_nothing() -> None:
    with pytest.raises(DataError, match=r"^rows: there are no rows\.$"):
        surveyed()
    with pytest.raises(DataError, match=r"no row makes a record: 2 ties"):
        survey(iter([Skipped("ties")] * 2))


def test_numbers_of_pairs() -> None:
    first = {"prompt": "aa bb", "chosen": "cc dd ee", "rejected": "ff", "margin": 1.0}
    second = {"prompt": "aa bbb", "chosen": "c", "rejected": "ffff gggg", "weight": 2}
    third = {"prompt": "aa bbb", "chosen": "c d", "rejected": "e f"}
    found = survey([*load.stream([first, second, third])[1], Skipped("ties")])
    assert dict(found.counts) == {
        "rows": 3, "usable": 3, "unusable": 0, "different prompts": 2, "pairs": 3, "plain-text prompts": 3,
        "rows with a margin": 1, "rows with a weight": 1,
    }  # fmt: skip
    assert found.passed_over == {"ties": 1}
    assert found.lengths == {
        "characters": {
            "prompt": Lengths(3, 17 / 3, 6, 6, 6),
            "chosen": Lengths(3, 4.0, 3, 8, 8),
            "rejected": Lengths(3, 14 / 3, 3, 9, 9),
        },
        "words": {
            "prompt": Lengths(3, 2.0, 2, 2, 2),
            "chosen": Lengths(3, 2.0, 2, 3, 3),
            "rejected": Lengths(3, 5 / 3, 2, 2, 2),
        },
    }
    # longer wins, loses, ties
    assert found.bias is not None
    assert (found.bias.share, found.bias.ties, found.bias.unit) == (0.5, 1, "characters")
    # the second prompt's two pairs together are 1/2 below what is expected, the first's 1/2 above
    assert (found.bias.low, found.bias.high) == wilson(0.5, min(3.0, 0.25 / ((0.5**2 + 0.5**2) / 9)))
    assert (found.bias.chosen, found.bias.rejected) == (4.0, 14 / 3)


def test_numbers_of_labelled_rows_and_aspects() -> None:
    spans = [{"start": 0, "end": 2, "aspect": "a", "score": 0.5}, {"start": 2, "end": 4, "aspect": "a", "score": 1.0}]
    found = surveyed(
        {"prompt": "p?", "completion": "abcd", "label": True, "completion_spans": spans},
        {"prompt": "q?", "completion": "abcdef", "label": False, "completion_spans": [{"start": 0, "end": 1}, *spans]},
        {"prompt": "r?", "completion": "ab", "label": False},
    )
    assert found.bias is None
    assert (found.counts["desirable answers"], found.counts["undesirable answers"]) == (1, 2)
    assert found.counts["rows with spans"] == 2
    assert list(found.aspects.items()) == [("a", Aspect(2, 4, 0.75, 0.75)), ("", Aspect(1, 1, None, 0.0))]
    assert found.lengths["characters"]["undesirable"] == Lengths(2, 4.0, 2, 6, 6)


def test_aspects_beyond_a_thousand_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASPECTS", 2)
    found = surveyed(row(0, chosen_spans=[{**SPAN, "aspect": name} for name in "abcd"]))
    assert found.aspects[module.OTHERS] == Aspect(1, 2, 1.0, None)


def test_tokens(tokenizers: Callable[..., Any]) -> None:
    fit = Fit(tokenizers("chatml"), max_length=160)
    rows = [
        row(0),
        row(1, chosen="The sky is blue. " * 60),
        row(2, chosen="<|im_start|>"),
        row(3, chosen="The same. " * 60),
    ]
    rows[3]["rejected"] = rows[3]["chosen"] + "no"
    found = surveyed(*rows, fit=fit)
    assert found.counts[module.TOO_LONG] == 1
    assert (found.counts["answers cut"], found.counts.get("prompts cut", 0)) == (1, 0)
    assert places(found) == {
        "chosen and rejected are the same tokens once cut to …": ["rows:4"],
        MARKS: ["rows:3 chosen"],
        OVERLONG: ["rows:2"],
    }
    assert found.lengths["tokens"]["prompt"].texts == 3
    assert found.bias is not None
    assert found.bias.unit == "tokens"
    merged = {"prompt": "The capital of France is Par", "chosen": "is.", "rejected": "is. The"}
    assert places(surveyed(merged, fit=Fit(tokenizers("none"), max_length=48))) == {MERGES: ["rows:1"]}


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(n % 20, chosen="" if n % 9 == 1 else "Yes." * (n % 4 + 1)) for n in range(60)]
    whole = surveyed(*rows)
    monkeypatch.setattr(module, "CHUNK", 7)
    heard: list[int] = []
    assert surveyed(*rows, progress=heard.append) == whole
    assert heard == [7, 14, 21, 28, 35, 42, 49, 56, 60]


def generated(count: int) -> Iterator[dict[str, Any]]:
    seed = random.Random(0)
    words = [f"w{n}" for n in range(500)]
    for _ in range(count):
        prompt, chosen, rejected = (" ".join(seed.choices(words, k=8)) for _ in range(3))
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def peak(count: int, folder: Path) -> int:
    """Bytes that a survey of so many rows of a file takes at most."""
    import json

    with (folder / "rows.jsonl").open("w") as file:
        file.writelines(json.dumps(one) + "\n" for one in generated(count))
    tracemalloc.start()
    try:
        name, read = load.stream(folder / "rows.jsonl")
        survey(read, name=name)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_by_less_than_250_bytes_a_row(tmp_path: Path) -> None:
    survey(load.stream(list(generated(300)))[1])  # what is imported once
    few, many = 5_000, 20_000
    assert (peak(many, tmp_path) - peak(few, tmp_path)) / (many - few) < 250


def test_a_survey_without_a_tokenizer_imports_nothing_heavy() -> None:
    code = """if True:
        import sys
        from grainline.data import load, survey
        survey.survey(load.stream([{"prompt": "a", "chosen": "b", "rejected": "c"}])[1])
        assert not {"torch", "transformers", "datasets", "tokenizers"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.real
def test_real_data(shared_data: Path) -> None:
    name, read = load.stream(shared_data / "hh_harmless")
    test, _ = prompts(load.stream(shared_data / "hh_harmless", split="test")[1])
    found = survey(read, name=name, test=test)
    assert (found.counts["rows"], found.counts["unusable"], len(test.places)) == (1499, 0, 500)
    records = load.read(shared_data / "hh_harmless").records
    differences = [len(r.answers[0].text) - len(r.answers[1].text) for r in records]
    assert found.bias is not None
    assert found.bias.share == pytest.approx(sum(1.0 * (d > 0) + 0.5 * (d == 0) for d in differences) / 1499)
    assert SHARED not in places(found)
    assert found.lengths["characters"]["chosen"].longest == max(len(r.answers[0].text) for r in records)


@pytest.mark.real
def test_real_spans(shared_data: Path) -> None:
    name, read = load.stream(shared_data / "qa_feedback", split="spans_train")
    found = survey(read, name=name)
    spans = [
        s for r in load.read(shared_data / "qa_feedback" / "spans_train.jsonl.gz").records for s in r.answers[1].spans
    ]
    assert {a: n.spans for a, n in found.aspects.items()} == {
        aspect: sum(s.aspect == aspect for s in spans) for aspect in ("relevance", "factuality")
    }
