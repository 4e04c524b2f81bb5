"""Rows scored by a reward: what is written, that training reads it, and that no interruption changes a byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from _toy import Toy, jsonl, marked, pairs
from grainline.data import load
from grainline.errors import DataError, RunError, SpecError
from grainline.reward_training import Plan, train
from grainline.runs import align
from grainline.scoring import score

RULE = "rules:measure=length,target=4"
ASK = [{"role": "user", "content": "Why?"}]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def plain(tmp_path: Path) -> str:
    rows = [
        {"prompt": ASK, "chosen": "One two. One two three four.", "rejected": "One.", "kind": "why", "margin": 2},
        {"prompt": ASK, "completion": "One two.", "label": False},
        {"chosen": "Why? It is so.", "rejected": "Why? No."},
    ]
    return jsonl(tmp_path / "plain.jsonl", rows)


def test_sentences_become_a_matrix_and_numbers(plain: str, tmp_path: Path) -> None:
    made = score(plain, RULE, tmp_path / "out.jsonl", aspects=["clarity", "tone"])
    pair, labelled, implied = read(made.path)
    assert pair["aspect_names"] == ["clarity", "tone"]
    assert pair["chosen_segments"] == [[0, 9], [9, 28]]
    assert pair["chosen_aspect_scores"] == [[2 / 4] * 2, [1] * 2]
    assert (pair["chosen_score"], pair["rejected_score"]) == (3 / 4, 1 / 4)
    assert (pair["kind"], pair["margin"]) == ("why", 2)
    assert (labelled["completion_score"], labelled["label"]) == (2 / 4, False)
    assert (implied["prompt"], implied["chosen"]) == ("Why?", " It is so.")
    records = load.read([pair]).records
    spans = [(span.start, span.stop, span.aspect, span.score) for span in records[0].answers[0].spans]
    assert spans == [(a, b, name, s) for a, b, s in ((0, 9, 0.5), (9, 28, 1.0)) for name in ("clarity", "tone")]
    assert dict(records[0].numbers)["chosen_score"] == 3 / 4


def test_whole_answers_get_numbers_alone(plain: str, tmp_path: Path) -> None:
    pair, *_ = read(score(plain, RULE, tmp_path / "out.jsonl", by="answer").path)
    assert (pair["chosen_score"], pair["rejected_score"]) == (4 / 6, 1 / 4)
    assert not {column for column in pair if "segments" in column or "aspect" in column}


def test_marks_that_are_there_are_neither_mixed_nor_lost(plain: str, tmp_path: Path) -> None:
    rows = [
        read(Path(plain))[0] | {"rejected_spans": [{"start": 0, "end": 3, "aspect": "fact"}], "score_range": [0, 4]}
    ]
    source = jsonl(tmp_path / "marked.jsonl", rows)
    with pytest.raises(DataError, match=r"marked:1 rejected_spans: parts of the answer are judged already"):
        score(source, RULE, tmp_path / "out.jsonl")
    (made,) = read(score(source, RULE, tmp_path / "replaced.jsonl", replace=True).path)
    assert "rejected_spans" not in made
    assert "score_range" not in made
    assert made["rejected_aspect_scores"] == [[1 / 4]]
    assert {"step": "unmark:replace=true", "gone": ["rejected_spans"]} in made["curation"]


def test_a_reward_without_bounds_can_be_given_some(toy: Toy, tmp_path: Path) -> None:
    train(toy.pairs, tmp_path / "head", Plan(pool="mean", model=toy.model, members=2))
    reward = f"head:path={tmp_path / 'head'}"
    raw = read(score(toy.held_out, reward, tmp_path / "raw.jsonl", by="answer").path)
    assert min(row["rejected_score"] for row in raw) < 0 < max(row["chosen_score"] for row in raw)
    assert all(row["chosen_uncertainty"] > 0 for row in raw)
    bounded = read(score(toy.held_out, reward, tmp_path / "bounded.jsonl", between=(-5, 5)).path)
    assert all(0 <= s <= 1 for row in bounded for line in row["chosen_aspect_scores"] for s in line)


def test_what_is_scored_is_trained_on(toy: Toy, tmp_path: Path) -> None:
    """By 2d-dpo on the segments, by dpo on the uncertainty of the answers."""
    head = tmp_path / "head"
    train(jsonl(tmp_path / "marked.jsonl", marked(50)), head, Plan(pool="mean", model=toy.model, members=3))
    made = score(toy.pairs, f"head:path={head}", tmp_path / "scored.jsonl", aspects=["tone"])
    for objective, supervision in (("2d-dpo", "segments"), ("updpo", "sequence")):
        choices = {"data": str(made.path), "objective": objective, "supervision": supervision}
        run = align(**toy.choices(tmp_path / objective, **choices))
        assert run.finished
    assert sum(row["chosen_score"] > row["rejected_score"] for row in read(made.path)) > 36, "of 40: warm words"


def test_a_job_killed_again_and_again_ends_with_the_same_bytes(
    toy: Toy, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 while features are read and while rows are written; nothing that was finished is done again."""
    head = tmp_path / "head"
    train(jsonl(tmp_path / "marked.jsonl", marked(50)), head, Plan(pool="mean", model=toy.model, members=2))
    source, reward = jsonl(tmp_path / "rows.jsonl", pairs(240, prompts=150, seed=5)), f"head:path={head},max_tokens=300"
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache-whole"))
    whole = score(source, reward, tmp_path / "whole.jsonl")
    cache, out = tmp_path / "cache-killed", tmp_path / "killed.jsonl"
    script = Path(__file__).parent / "scripts" / "scored.py"
    journal = tmp_path / "killed.jsonl.work" / "4.jsonl"
    for features, lines in ((3, 0), (12, 0), (12, 60), (12, 150)):
        job = subprocess.Popen(
            [sys.executable, str(script), source, str(out), reward], env=os.environ | {"GRAINLINE_CACHE": str(cache)}
        )
        while (
            len(list((cache / "rewards").rglob("*.safetensors"))) < features
            or (journal.read_bytes().count(b"\n") if journal.is_file() else 0) < lines
        ):
            assert job.poll() is None, "it was done before it was killed"
            time.sleep(0.005)
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
        assert not out.exists()
    monkeypatch.setenv("GRAINLINE_CACHE", str(cache))
    made = score(source, reward, out)
    assert out.read_bytes() == whole.path.read_bytes()
    assert made.facts == whole.facts
    kept = [
        sorted(f.name for f in (tmp_path / c / "rewards").rglob("*.safetensors"))
        for c in ("cache-whole", "cache-killed")
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) > 20


def test_another_head_is_another_job(toy: Toy, tmp_path: Path) -> None:
    """The folder is named alike, and holds other numbers."""
    head, lessons = tmp_path / "head", jsonl(tmp_path / "marked.jsonl", marked(50))
    train(lessons, head, Plan(pool="mean", model=toy.model, members=2))
    score(toy.held_out, f"head:path={head}", tmp_path / "out.jsonl")
    train(lessons, head, Plan(pool="mean", model=toy.model, members=2, seed=1))
    with pytest.raises(RunError, match="made with other reads"):
        score(toy.held_out, f"head:path={head}", tmp_path / "out.jsonl")


def test_a_mistake_is_found_before_a_row_is_scored(plain: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no method 'rule' in rewards/. Did you mean 'rules'"):
        score(plain, "rule", tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="no such file"):
        score("nowhere.jsonl", RULE, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
