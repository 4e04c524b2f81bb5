"""What rows ask: prompts, answers, exchanges; and questions that reach a reward as a stream and come back by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grainline.curation._asking import conversation, desk, each, exchanges, is_answered, question, said, weights
from grainline.curation._seam import Bench
from grainline.curation.generate import Generate
from grainline.curation.select import Select
from grainline.errors import DataError
from grainline.rewards._seam import Asked, Scores
from grainline.rewards.rules import Rules

ASK = [{"role": "user", "content": "q"}]
SAY = [{"role": "assistant", "content": "a"}]


def test_a_prompt_is_found_with_and_without_answers() -> None:
    for row in ({"prompt": "p"}, {"prompt": "p", "answers": ["x"]}, {"prompt": "p", "completion": "c"}):
        assert question(row).prompt == "p"
    assert question({"messages": [*ASK, *SAY]}).prompt == tuple(ASK)
    assert question({"prompt": ASK, "tools": [{"name": "t"}]}).tools == ({"name": "t"},)
    assert [len(conversation(row).answers) for row in ({"prompt": "p"}, {"prompt": "p", "completion": "c"})] == [0, 1]
    assert question({"prompt": "p", "answers": ["x"], "chosen": "c", "rejected": "r"}).answers[0].text == "c"
    assert not is_answered({"prompt": "p", "answers": ["x"], "chosen": None})
    with pytest.raises(DataError, match="prompt"):
        question({"id": "a"})


def test_every_answer_is_found_with_its_pieces() -> None:
    prompt, found = said({"prompt": "p", "chosen": "ab", "rejected": "c", "chosen_segments": [[0, 1], [1, 2]]})
    assert prompt == "p"
    assert [(one.side, one.text, one.segments, one.plain) for one in found] == [
        ("chosen", "ab", ((0, 1), (1, 2)), True),
        ("rejected", "c", (), True),
    ]
    _, found = said({"prompt": "p", "answers": ["x", {"text": "y z", "segments": ["y", "z"]}]})
    assert [(one.side, one.text, one.segments) for one in found] == [("", "x", ()), ("", "y z", ((0, 1), (2, 3)))]
    turns = [*SAY, *ASK, *SAY]
    _, (one,) = said({"prompt": ASK, "completion": turns, "label": True})
    assert (one.text, one.plain) == ("a\nq\na", False)


def test_exchanges_are_what_was_asked_and_answered() -> None:
    assert exchanges({"prompt": "p", "completion": "c"}) == [("p", "c")]
    system = {"role": "system", "content": "s"}
    row = {"prompt": [system, *ASK, *SAY, *ASK], "chosen": "best", "rejected": "worst"}
    assert exchanges(row) == [((system, *ASK), "a"), ((system, *ASK, *SAY, *ASK), "best")]
    with pytest.raises(DataError, match="a: there is no answer to be scored"):
        exchanges({"id": "a", "prompt": "p"})


class Ahead:
    """Reads so many questions ahead, and says each one's length."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead

    def score(self, asked: Iterable[Asked]) -> Iterator[Scores]:
        waiting: list[Asked] = []
        for one in asked:
            waiting.append(one)
            if len(waiting) > self.ahead:
                yield Scores(((float(len(waiting.pop(0).answer)),),))
        yield from (Scores(((float(len(one.answer)),),)) for one in waiting)


@pytest.mark.parametrize("ahead", [0, 1, 5, 100])
def test_scores_come_back_to_the_row_that_asked(ahead: int) -> None:
    rows: list[dict[str, Any]] = [{"n": n} for n in (0, 2, 1, 0, 0, 3, 0)]

    def ask(row: Any) -> list[Asked]:
        return [Asked("p", "x" * (10 * row["n"] + k)) for k in range(row["n"])]

    found = [(row["n"], [one.value[0][0] for one in heard]) for row, heard in each(rows, ask, Ahead(ahead))]
    assert found == [(row["n"], [10.0 * row["n"] + k for k in range(row["n"])]) for row in rows]


def test_of_a_run_it_is_the_adapter_that_answers(tmp_path: Path) -> None:
    assert weights("a-model") == ("a-model",)
    (tmp_path / "adapter").mkdir()
    assert weights(str(tmp_path)) == (str(tmp_path),)
    (tmp_path / "recipe.yaml").touch()
    assert weights(str(tmp_path)) == (str(tmp_path / "recipe.yaml"), str(tmp_path / "adapter"))
    assert Generate(model=str(tmp_path)).reads == Select(model=str(tmp_path)).reads == weights(str(tmp_path))
    assert Generate(base_url="http://x").reads == Select(vectors="v").reads == ()


def test_rewards_keep_what_they_know_in_a_folder_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path))
    found = desk(Bench(tmp_path / "bench", seed=4, quiet=False), Rules())
    assert found == (tmp_path / "rewards" / "rules", 4, False)
