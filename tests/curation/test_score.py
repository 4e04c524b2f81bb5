"""The matrix that training reads, numbers, and what the scores are worth; by rewards whose scores are known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from grainline import provenance, rooms
from grainline.curation._agreement import alpha
from grainline.curation._seam import Bench
from grainline.curation.pair import Pair
from grainline.curation.score import Score
from grainline.data import columns
from grainline.errors import DataError, SpecError
from grainline.rewards._seam import Asked, Desk, Scores
from grainline.rewards.ensemble import Ensemble
from grainline.types import Span, spec


@spec
class Letters:
    """Counts a letter in each piece; "safety" counts another, "taste" cannot be judged. One e is 1 of 4."""

    needs: ClassVar[frozenset[str]] = frozenset()
    between: tuple[float, float] | None = (0.0, 4.0)
    letter: str = "e"
    spread: bool = False

    @contextmanager
    def open(self, desk: Desk) -> Iterator[Letters]:
        desk.folder.mkdir(parents=True, exist_ok=True)
        yield self

    def score(self, asked: Iterable[Asked]) -> Iterator[Scores]:
        for one in asked:
            letters = {"safety": "s", "taste": ""}
            value = tuple(
                tuple(
                    float(one.answer[a:b].count(letter)) if letter else math.nan
                    for letter in (letters.get(aspect, self.letter) for aspect in one.aspects)
                )
                for a, b in one.pieces
            )
            yield Scores(value, tuple(tuple(0.5 for _ in row) for row in value) if self.spread else None)


PAIR = {
    "id": "a",
    "prompt": "p",
    "chosen": "eee. e s",
    "rejected": "no",
    "chosen_segments": [[0, 5], [5, 8]],
}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))


def scored(step: Score, *rows: Any) -> list[dict[str, Any]]:
    with step.open(Bench(Path("unused"))) as made:
        found = [list(few) for few in made(rows)]
    assert [len(few) for few in found] == [1] * len(rows)
    return [few[0] for few in found]


def facts(step: Score, *rows: Any) -> dict[str, float]:
    with step.open(Bench(Path("unused"))) as made:
        return made.told([row for few in made(rows) for row in few])


def test_a_pair_gets_the_matrix_that_training_reads() -> None:
    (row,) = scored(Score(reward=Letters(), aspects=("tone", "safety")), PAIR)
    assert row["aspect_names"] == ["tone", "safety"]
    assert row["chosen_segments"] == [[0, 5], [5, 8]]
    assert row["chosen_aspect_scores"] == [[3 / 4, 0], [1 / 4, 1 / 4]]
    assert row["rejected_segments"] == [[0, 2]]  # it was not cut
    assert row["rejected_aspect_scores"] == [[0, 0]]
    assert row["chosen_score"] == pytest.approx((3 + 0 + 1 + 1) / 4 / 4)
    assert row["rejected_score"] == 0
    assert row["curation"] == [{"step": row["curation"][0]["step"], "cells": 6, "scored": 6}]
    read = columns.record(row, where="here", id="a")
    assert read.answers[0].spans == (
        Span(0, 5, "tone", 0.75),
        Span(0, 5, "safety", 0.0),
        Span(5, 8, "tone", 0.25),
        Span(5, 8, "safety", 0.25),
    )
    assert dict(read.numbers) == {"chosen_score": row["chosen_score"], "rejected_score": 0.0}


def test_several_answers_are_scored_each() -> None:
    answers = ["eee", {"text": "e e", "segments": [[0, 2], [2, 3]], "model": "m"}]
    (row,) = scored(Score(reward=Letters()), {"id": "a", "prompt": "p", "answers": answers})
    assert row["aspect_names"] == ["overall"]
    one = {"text": "eee", "segments": [[0, 3]], "aspect_scores": [[0.75]], "score": 0.75}
    two = {"text": "e e", "model": "m", "segments": [[0, 2], [2, 3]], "aspect_scores": [[0.25], [0.25]], "score": 0.25}
    assert row["answers"] == [one, two]
    assert "chosen" not in row


def test_labelled_rows_and_conversations() -> None:
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "ee"}]
    found = scored(
        Score(reward=Letters()),
        {"id": "l", "prompt": "p", "completion": "e", "label": True},
        {"id": "m", "messages": turns},
        {"id": "t", "prompt": turns[:1], "chosen": [turns[1], turns[0], turns[1]], "rejected": [turns[1]]},
    )
    assert [row.get("completion_score") for row in found] == [0.25, 0.5, None]
    assert found[2]["chosen_score"] == 1.0  # "ee\np\nee"
    assert "chosen_aspect_scores" not in found[2]  # several turns have no places that training could read
    assert found[2]["rejected_aspect_scores"] == [[0.5]]
    for row in found:
        columns.record(row, where="here", id=row["id"])


def test_what_cannot_be_judged_is_null_and_counted() -> None:
    (row,) = scored(Score(reward=Letters(), aspects=("tone", "taste")), PAIR)
    assert row["chosen_aspect_scores"] == [[0.75, None], [0.25, None]]
    assert row["chosen_score"] == 0.5
    assert (row["curation"][0]["cells"], row["curation"][0]["scored"]) == (6, 3)
    (row,) = scored(Score(reward=Letters(), aspects=("taste",)), PAIR)
    assert row["chosen_score"] is None
    assert facts(Score(reward=Letters(), aspects=("taste",)), PAIR) == {"coverage": 0.0}


def test_a_second_reward_adds_its_columns() -> None:
    (first,) = scored(Score(reward=Letters(), aspects=("tone", "old")), PAIR)
    (second,) = scored(Score(reward=Letters(letter="s"), aspects=("more", "old")), first)
    assert second["aspect_names"] == ["tone", "old", "more"]
    assert second["chosen_aspect_scores"] == [[0.75, 0, 0], [0.25, 0.25, 0.25]]
    other = {"text": "e e", "segments": [[0, 2], [2, 3]], "aspect_scores": [[0.25]]}
    row = {"id": "a", "prompt": "p", "answers": [other], "aspect_names": ["tone"]}
    with pytest.raises(DataError, match=r"a answers\[0\] aspect_scores: the scores that are there are of other pieces"):
        scored(Score(reward=Letters()), row)


def test_scores_go_onto_the_scale_that_the_row_has() -> None:
    span = {"start": 0, "end": 1, "score": 5}
    (row,) = scored(Score(reward=Letters()), PAIR | {"score_range": [1, 5], "chosen_spans": [span]})
    assert row["chosen_aspect_scores"] == [[1 + 4 * 0.75], [1 + 4 * 0.25]]
    read = columns.record(row, where="here", id="a")
    assert [one.score for one in read.answers[0].spans] == [1.0, 0.75, 0.25]


def test_several_answers_are_on_the_scale_of_their_row() -> None:
    given = {"id": "a", "prompt": "p", "answers": ["eee", "e"], "score_range": [1, 5]}
    (row,) = scored(Score(reward=Letters()), given)
    assert [answer["aspect_scores"] for answer in row["answers"]] == [[[4.0]], [[2.0]]]
    with Pair().open(Bench(Path("unused"))) as pairs:
        ((pair,),) = pairs([row])
    read = columns.record(pair, where="here", id="a")
    assert [answer.spans[0].score for answer in read.answers] == [0.75, 0.25]


def test_a_prompt_that_stands_in_the_answers_is_refused() -> None:
    row = {"id": "a", "chosen": "go on and on", "rejected": "go on or not"}
    with pytest.raises(DataError, match=r"a prompt: the prompt stands in the answers.*convert"):
        scored(Score(reward=Letters()), row)


# ------------------------------------------------------------------------------------------------------- options


def test_option_reward() -> None:
    """Another reward, other scores; the members of an ensemble are compared."""
    both = Ensemble(of=(Letters(), Letters(letter="s")))
    (row,) = scored(Score(reward=both), PAIR)
    assert row["chosen_aspect_scores"] == [[(3 + 0) / 2 / 4], [(1 + 1) / 2 / 4]]
    deviation = [math.dist((a, b), ((a + b) / 2,) * 2) / 4 for a, b in ((3, 0), (1, 1))]  # over n - 1 = 1
    assert row["chosen_uncertainty"] == pytest.approx(sum(deviation) / 2)
    assert row["curation"][0]["members"] == [[2.0, 0.5], [0.0, 0.0]]
    assert facts(Score(reward=both), PAIR)["alpha"] == pytest.approx(alpha([(2.0, 0.5), (0.0, 0.0)]), abs=1e-6)
    assert facts(Score(reward=Letters()), PAIR) == {"coverage": 1.0, "chosen_above_rejected": 1.0}
    assert Score(reward=[Letters(), Letters(letter="s")]).reward == both
    with pytest.raises(SpecError, match="no method 'nothing' in rewards"):
        rooms.parse("curation", "score:reward=(nothing)")
    with pytest.raises(SpecError, match="score: no reward"):
        scored(Score(), PAIR)


def test_the_uncertainty_of_a_reward_that_knows_it_is_on_the_scale_of_its_scores() -> None:
    (row,) = scored(Score(reward=Letters(spread=True)), PAIR)
    assert row["chosen_uncertainty"] == 0.5 / 4
    (row,) = scored(Score(reward=Letters()), PAIR)
    assert "chosen_uncertainty" not in row


def test_what_the_reward_reads_makes_another_job(tmp_path: Path) -> None:
    @spec
    class Reading(Letters):
        reads: tuple[str, ...] = ()

    head = tmp_path / "head.json"
    head.write_text("{}", encoding="utf-8")
    jury, alone = Score(reward=[Letters(), Reading(reads=(str(head),))]), Score(reward=Reading(reads=(str(head),)))
    assert provenance.read_by(jury) == provenance.read_by(alone) == {str(head): provenance.digest(head)}
    assert provenance.read_by(Score(reward=Letters())) == provenance.read_by(Score()) == {}


def test_option_aspects() -> None:
    assert scored(Score(reward=Letters()), PAIR)[0]["aspect_names"] == ["overall"]
    assert scored(Score(reward=Letters(), aspects=("safety",)), PAIR)[0]["chosen_aspect_scores"] == [[0], [0.25]]
    with pytest.raises(ValueError, match="aspects have names, each another"):
        Score(aspects=("a", "a"))


def test_option_pieces() -> None:
    (row,) = scored(Score(reward=Letters(), pieces="answer"), PAIR)
    assert (row["chosen_score"], row["rejected_score"]) == (1.0, 0.0)
    assert row["chosen_segments"] == PAIR["chosen_segments"]
    assert "chosen_aspect_scores" not in row
    assert "aspect_names" not in row


def test_option_between() -> None:
    """Without bounds scores stand as they are, and make no matrix; with them they are put between 0 and 1."""
    endless = Letters(between=None)
    (row,) = scored(Score(reward=endless), PAIR)
    assert (row["chosen_score"], row["rejected_score"]) == (2.0, 0.0)
    assert "chosen_aspect_scores" not in row
    (row,) = scored(Score(reward=endless, between=(1, 2)), PAIR)
    assert row["chosen_aspect_scores"] == [[1.0], [0.0]]
    with pytest.raises(ValueError, match="the worst score is below the best"):
        Score(between=(1, 1))


# --------------------------------------------------------------------------------------------- what they are worth


def test_agreement_with_what_the_data_says() -> None:
    pairs = [{"prompt": "p", "chosen": c, "rejected": r} for c, r in (("ee", "e"), ("e", "ee"), ("ex", "e"))]
    assert facts(Score(reward=Letters()), *pairs) == {"coverage": 1.0, "chosen_above_rejected": (1 + 0 + 0.5) / 3}
    labelled = [{"prompt": "p", "completion": text, "label": good} for text, good in (("e", True), ("ee", False))]
    assert facts(Score(reward=Letters()), *labelled)["labels_in_order"] == 0.0
    faulty = PAIR | {"chosen_spans": [{"start": 6, "end": 7, "type": "wrong"}]}  # in the second piece, which has one e
    assert facts(Score(reward=Letters()), faulty)["faults_in_order"] == 1.0
    assert facts(Score(reward=Letters(letter="s")), faulty)["faults_in_order"] == 0.0
    (judged,) = scored(Score(reward=Letters(), aspects=("tone",)), faulty)
    assert "faults_in_order" not in facts(
        Score(reward=Letters(), pieces="answer"), judged
    )  # numbers say nothing of places
    praised = PAIR | {"chosen_spans": [{"start": 6, "end": 7, "score": 1.0}]}
    assert "faults_in_order" not in facts(Score(reward=Letters()), praised)


def test_written_as_text() -> None:
    step = rooms.parse("curation", "score:reward=(judge:model=m),aspects=[safety]")
    assert rooms.text(step.reward) == "judge:model=m"
    assert rooms.parse("curation", "score:reward=[(rules), (judge:model=m)]").reward.of[1].model == "m"
    both = "score:reward=(ensemble:of=[(rules:measure=sentiment), (judge:model=m)])"
    assert rooms.text(rooms.parse("curation", both)) == both
