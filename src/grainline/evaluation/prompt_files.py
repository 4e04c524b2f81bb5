"""Prompts of well-known benchmarks, read as they are published, and answers written as their programs read them.

============  ==========================================================================================================
``alpaca``    AlpacaEval: a JSON list of ``{"instruction", "dataset", ...}``; answers are a JSON list of
              ``{"instruction", "output", "generator", "dataset"}``
``mt-bench``  MT-Bench: JSON lines of ``{"question_id", "category", "turns": [first, second]}``; the second turn is
              asked after the model's own first answer; answers are JSON lines of ``{"question_id", "answer_id",
              "model_id", "choices": [{"index", "turns"}], "tstamp"}``
``records``   anything that :mod:`grainline.data.load` reads: the prompts of its rows
============  ==========================================================================================================

MT-Bench's questions have a temperature by their category, as FastChat's ``fastchat/llm_judge/common.py`` sets it, and
0.7 in any other; a question's own ``required_temperature`` goes before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from grainline.data import fields, files, load
from grainline.errors import DataError

Kind = Literal["alpaca", "mt-bench", "records"]
Turns = tuple[Mapping[str, Any], ...]
TEMPERATURES = {
    **dict.fromkeys(("writing", "roleplay"), 0.7),
    **dict.fromkeys(("extraction", "math", "coding", "reasoning"), 0.0),
    **dict.fromkeys(("stem", "humanities"), 0.1),
}
"""MT-Bench's category -> temperature of the answers."""
OTHER = 0.7
"""Of any other category."""


class Question(NamedTuple):
    """What one prompt asks, turn after turn: each further turn comes after the model's own answer."""

    id: str
    prompt: str | Turns  # the first turn, and what stands before it
    further: tuple[str, ...] = ()  # what the user says after each answer
    given: Mapping[str, Any] = {}  # the file's own fields
    temperature: float | None = None  # that the benchmark asks for


class Prompts(NamedTuple):
    kind: Kind
    questions: list[Question]


def read(path: str, *, limit: int = 0) -> Prompts:
    """The questions of a file, the first ``limit`` of them (0: all).

    Raises:
        DataError: the file cannot be read, a question lacks its words, or two have one id.
    """
    rows = _objects(path)
    if rows and all("instruction" in row.row for row in rows):
        kind: Kind = "alpaca"
        made = [_alpaca(n, row) for n, row in enumerate(rows)]
    elif rows and all("turns" in row.row and "question_id" in row.row for row in rows):
        kind, made = "mt-bench", [_mt_bench(row) for row in _apart(rows)]
    else:
        found = load.read(path, split="test")
        load.refuse(found, skip_bad_rows=False)
        kind, made = "records", [Question(record.id, record.prompt) for record in found.records]
    return Prompts(kind, made[: limit or None])


def answers(kind: Kind, questions: Sequence[Question], said: Mapping[str, str], who: str) -> tuple[str, str]:
    """(name of the file, its text): the answers of ``who`` in the form of ``kind``; ``said``: id, or id/turn, -> text.

    Answers to records have no other form.
    """
    if kind == "alpaca":
        rows = [
            {
                "dataset": q.given.get("dataset", ""),
                "instruction": q.given["instruction"],
                "output": said[q.id],
                "generator": who,
            }
            for q in questions
        ]
        return "alpaca_eval.json", json.dumps(rows, indent=1)
    if kind == "mt-bench":
        lines = []
        for q in questions:
            turns = [said[q.id], *(said[f"{q.id}/{n}"] for n in range(2, len(q.further) + 2))]
            answer = hashlib.sha256(json.dumps([who, q.id, turns]).encode()).hexdigest()[:22]
            lines.append(
                {
                    "question_id": q.given["question_id"],
                    "answer_id": answer,
                    "model_id": who,
                    "choices": [{"index": 0, "turns": turns}],
                    "tstamp": 0.0,  # when is told in facts.json; here it would make equal answers unequal
                }
            )
        return "mt_bench.jsonl", "".join(json.dumps(line) + "\n" for line in lines)
    return "", ""


def _objects(path: str) -> list[files.Row]:
    """The rows of a file with their places; none where one is no object: who reads them as records says why."""
    if not Path(path).expanduser().is_file():
        return []
    found = list(files.rows(path, split="")[1])
    return found if all(isinstance(row, Mapping) for _, _, row in found) else []


def _apart(rows: Sequence[files.Row]) -> Sequence[files.Row]:
    """``rows``, each a question of its own: answers are kept and counted under the question's id."""
    seen: dict[str, str] = {}
    for where, _, row in rows:
        if (first := seen.setdefault(str(row["question_id"]), where)) != where:
            what, instead = f"{row['question_id']!r} is that of {first}.", "Give each question its own, or remove one."
            raise DataError(what, where=f"{where} question_id", instead=instead)
    return rows


def _alpaca(n: int, found: files.Row) -> Question:
    where, _, row = found
    words = fields.text(row["instruction"], where=f"{where} instruction")
    if row.get("input"):  # AlpacaFarm's older rows keep the text that an instruction speaks of apart
        words += "\n\n" + fields.text(row["input"], where=f"{where} input")
    return Question(str(n), (_user(words),), (), row)


def _mt_bench(found: files.Row) -> Question:
    where, _, row = found
    if not isinstance(row["turns"], list) or not row["turns"]:
        raise DataError("it has no turns.", where=where, instead='Write "turns": ["first", "second"].')
    first, *further = (fields.text(turn, where=f"{where} turns") for turn in row["turns"])
    temperature = row.get("required_temperature", TEMPERATURES.get(str(row.get("category")), OTHER))
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 <= temperature < 100:
        raise DataError(f"{temperature!r} is no temperature.", where=f"{where} required_temperature")
    return Question(str(row["question_id"]), (_user(first),), tuple(further), row, float(temperature))


def _user(words: str) -> dict[str, str]:
    return {"role": "user", "content": words}
