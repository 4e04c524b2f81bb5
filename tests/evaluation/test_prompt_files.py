"""AlpacaEval's and MT-Bench's files in and out, and records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from _toy import Toy
from grainline.errors import DataError
from grainline.evaluation import prompt_files

ALPACA = [
    {"dataset": "helpful_base", "instruction": "Why?", "output": "Because.", "generator": "text_davinci_003"},
    {"dataset": "koala", "instruction": "Sum up.", "input": "A text.", "output": "x", "generator": "text_davinci_003"},
]
MT = [
    {"question_id": 81, "category": "writing", "turns": ["Write.", "Again, shorter."]},
    {"question_id": 82, "category": "math", "turns": ["1 + 1?"], "reference": ["2"]},
]


def lines(file: Path, rows: list[dict[str, object]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def test_alpaca_eval(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ALPACA), encoding="utf-8")
    kind, questions = prompt_files.read(str(tmp_path / "a.json"))
    assert kind == "alpaca"
    assert [(q.id, q.prompt) for q in questions] == [
        ("0", ({"role": "user", "content": "Why?"},)),
        ("1", ({"role": "user", "content": "Sum up.\n\nA text."},)),
    ]
    name, text = prompt_files.answers(kind, questions, {"0": "So.", "1": "T."}, "mine")
    assert name == "alpaca_eval.json"
    assert json.loads(text) == [
        {"dataset": "helpful_base", "instruction": "Why?", "output": "So.", "generator": "mine"},
        {"dataset": "koala", "instruction": "Sum up.", "output": "T.", "generator": "mine"},
    ]
    assert len(prompt_files.read(str(tmp_path / "a.json"), limit=1).questions) == 1


def test_mt_bench(tmp_path: Path) -> None:
    kind, questions = prompt_files.read(lines(tmp_path / "q.jsonl", MT))
    assert (kind, [q.id for q in questions]) == ("mt-bench", ["81", "82"])
    assert questions[0].further == ("Again, shorter.",)
    assert [q.temperature for q in questions] == [0.7, 0.0]
    name, text = prompt_files.answers(kind, questions, {"81": "A.", "81/2": "B.", "82": "2"}, "mine")
    first, second = map(json.loads, text.splitlines())
    assert name == "mt_bench.jsonl"
    assert (first["question_id"], first["model_id"]) == (81, "mine")
    assert first["choices"] == [{"index": 0, "turns": ["A.", "B."]}]
    assert second["choices"] == [{"index": 0, "turns": ["2"]}]
    assert set(first) == {"question_id", "answer_id", "model_id", "choices", "tstamp"}


@pytest.mark.parametrize(
    ("row", "temperature"),
    [
        ({"category": "roleplay"}, 0.7), ({"category": "extraction"}, 0.0), ({"category": "coding"}, 0.0),
        ({"category": "reasoning"}, 0.0), ({"category": "stem"}, 0.1), ({"category": "humanities"}, 0.1),
        ({"category": "cooking"}, 0.7), ({}, 0.7), ({"category": "math", "required_temperature": 0.3}, 0.3),
    ],
)  # fmt: skip
def test_mt_bench_has_a_temperature_by_category(row: dict[str, object], temperature: float, tmp_path: Path) -> None:
    """FastChat's fastchat/llm_judge/common.py (``temperature_config``) and gen_model_answer.py."""
    file = lines(tmp_path / "q.jsonl", [{"question_id": 1, "turns": ["Why?"], **row}])
    assert prompt_files.read(file).questions[0].temperature == temperature


def test_records(toy: Toy) -> None:
    kind, questions = prompt_files.read(toy.held_out, limit=3)
    assert (kind, len(questions)) == ("records", 3)
    assert prompt_files.answers(kind, questions, {}, "mine") == ("", "")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"instruction": " "}, "empty"),
        ({"instruction": 3}, "not text"),
        ({"question_id": 1, "turns": []}, "no turns"),
        ({"question_id": 1, "turns": ["a"], "required_temperature": "hot"}, "no temperature"),
    ],
)
def test_mistakes(row: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        prompt_files.read(lines(tmp_path / "x.jsonl", [row]))


@pytest.mark.parametrize("turns", [["Write."], ["Another."]])
def test_two_questions_of_one_id_are_refused(turns: list[str], tmp_path: Path) -> None:
    """One of both would be asked, and the other counted as if it had been."""
    rows: list[dict[str, object]] = [
        {"question_id": 81, "turns": ["Write."]},
        {"question_id": 82, "turns": ["Sum."]},
        {"question_id": "81", "turns": turns},
    ]
    file = lines(tmp_path / "q.jsonl", rows)
    with pytest.raises(DataError) as told:
        prompt_files.read(file, limit=1)
    assert (told.value.where, told.value.what) == ("q.jsonl:3 question_id", "'81' is that of q.jsonl:1.")
