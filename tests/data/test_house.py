"""house, the packaged data set, is what its card says."""

from __future__ import annotations

import collections
import itertools
import re
import statistics

import pytest

from grainline.data import files, load
from grainline.data.collate import aspect_levels
from grainline.types import Record

ASPECTS = ("helpfulness", "correctness", "safety", "completeness", "clarity")
SIDES = ("chosen", "rejected")


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Record]]:
    found = {split: load.read("house", split=split) for split in ("train", "test")}
    assert not any(loaded.problems for loaded in found.values())
    return {split: loaded.records for split, loaded in found.items()}


@pytest.fixture(scope="module")
def records(splits: dict[str, list[Record]]) -> list[Record]:
    return [record for split in splits.values() for record in split]


def question(record: Record) -> str:
    (turn,) = record.prompt
    return str(turn["content"])  # type: ignore[index]


def test_size_and_split_by_prompt(splits: dict[str, list[Record]], records: list[Record]) -> None:
    assert len(records) >= 240
    assert len(splits["test"]) >= 80
    prompts = {split: {question(record).casefold() for record in rows} for split, rows in splits.items()}
    assert sum(map(len, prompts.values())) >= 200
    assert not prompts["train"] & prompts["test"]
    assert len({record.id for record in records}) == len(records)


@pytest.mark.parametrize("split", ["train", "test"])
def test_length_says_nothing(split: str, splits: dict[str, list[Record]]) -> None:
    """'The longer answer is better' is right on about half of the pairs, in either split."""
    longer = [len(chosen.text) > len(rejected.text) for chosen, rejected in (r.answers for r in splits[split])]
    assert 0.45 <= statistics.mean(longer) <= 0.55


def test_spans_tile_the_answers(records: list[Record]) -> None:
    """Two to six segments an answer, end to end, each scored on all five aspects."""
    for record in records:
        for answer in record.answers:
            places = sorted({(span.start, span.stop) for span in answer.spans})
            assert 2 <= len(places) <= 6
            assert places[0][0] == 0
            assert places[-1][1] == len(answer.text)
            assert all(left[1] == right[0] for left, right in itertools.pairwise(places))
            for place in places:
                assert tuple(s.aspect for s in answer.spans if (s.start, s.stop) == place) == ASPECTS
            assert all(4 * span.score in range(5) for span in answer.spans)


def test_code_blocks_are_whole(records: list[Record]) -> None:
    blocks = 0
    for answer in (answer for record in records for answer in record.answers):
        for block in re.finditer(r"^```.*?^```", answer.text, re.MULTILINE | re.DOTALL):
            blocks += 1
            assert not any(block.start() < span.start < block.end() for span in answer.spans)
    assert blocks >= 20


def test_scores_agree_with_the_label(records: list[Record]) -> None:
    for record in records:
        chosen, rejected = (statistics.mean(aspect_levels(answer).values()) for answer in record.answers)
        assert chosen > rejected, record.id
        assert min(span.score for span in record.answers[1].spans) <= 0.5, record.id  # the flaw lives somewhere


def test_flaws_live_in_particular_sentences() -> None:
    """Most rejected answers have sound sentences too; and the flaw's own aspect is the one that is scored low."""
    raw = [row.row for split in ("train", "test") for row in files.rows("house", split=split)[1]]
    low = {
        "wrong-fact": "correctness",
        "harmful-help": "safety",
        "evasion": "helpfulness",
        "missing-step": "completeness",
    }
    for row in raw:
        if aspect := low.get(row["flaw"]):
            column = row["aspect_names"].index(aspect)
            assert min(scores[column] for scores in row["rejected_aspect_scores"]) <= 2, row["id"]
    mixed = [max(map(sum, r["rejected_aspect_scores"])) >= 17 > min(map(sum, r["rejected_aspect_scores"])) for r in raw]
    assert statistics.mean(mixed) > 0.6
    assert len({row["flaw"] for row in raw}) == 9
    assert len({row["kind"] for row in raw}) == 7


def test_it_is_written_not_templated(records: list[Record]) -> None:
    """No run of eight words stands in the answers to more than two prompts, and few answers begin alike."""
    seen: dict[tuple[str, ...], set[str]] = collections.defaultdict(set)
    openings: collections.Counter[tuple[str, ...]] = collections.Counter()
    for record in records:
        for answer in record.answers:
            words = re.findall(r"[\w']+", answer.text.lower())
            for start in range(len(words) - 7):
                seen[tuple(words[start : start + 8])].add(question(record))
        openings[tuple(re.findall(r"[\w']+", record.answers[1].text.lower())[:3])] += 1
    assert max(map(len, seen.values())) <= 2
    assert openings.most_common(1)[0][1] <= 5


def test_no_single_word_gives_the_label_away(records: list[Record]) -> None:
    """A word that stands in one answer of a pair only, as a vote (a tie counts one half): the best is right on 64 %."""
    votes: collections.Counter[str] = collections.Counter()
    for record in records:
        chosen, rejected = (set(re.findall(r"[\w']+", a.text.lower())) for a in record.answers)
        votes.update(dict.fromkeys(chosen - rejected, 1))
        votes.subtract(dict.fromkeys(rejected - chosen, 1))
    best = max(abs(lead) for lead in votes.values())
    assert 0.5 + best / (2 * len(records)) < 0.66
