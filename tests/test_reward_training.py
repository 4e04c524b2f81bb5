"""A head from rows to folder, and rewards measured: on a small world where warm words are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from _toy import Toy, jsonl
from _toy import marked as marked_rows
from grainline.errors import DataError, RunError, SpecError
from grainline.reward_training import Plan, evaluate, train
from grainline.rewards import head_torch


@pytest.fixture
def marked(toy: Toy, tmp_path: Path) -> str:
    return jsonl(tmp_path / "marked.jsonl", marked_rows(50))


def test_a_head_from_marked_errors(toy: Toy, marked: str, tmp_path: Path) -> None:
    told = train(marked, tmp_path / "head", Plan(pool="mean", model=toy.model, members=3))
    assert json.loads(json.dumps(told)) == json.loads((tmp_path / "head" / "head.json").read_text())
    assert (told["learn"], told["aspects"], told["unmarked"]) == ("segments", ["tone"], "marked")
    assert told["members"] == 3
    assert told["data"]["rows"] < told["taught"]["pieces"] <= 3 * told["data"]["rows"]
    found = evaluate(f"head:path={tmp_path / 'head'}", jsonl(tmp_path / "test.jsonl", marked_rows(90)[50:]))
    assert found.metrics["tone/auc_low"] > 0.9
    assert sum(row["pieces"] for row in found.reliability["tone"]) == found.metrics["tone/pieces"]


def test_the_same_rows_teach_the_same_head(toy: Toy, marked: str, tmp_path: Path, one_thread: None) -> None:
    for name in "ab":
        train(marked, tmp_path / name, Plan(pool="mean", model=toy.model, members=3))
    assert (tmp_path / "a" / "head.safetensors").read_bytes() == (tmp_path / "b" / "head.safetensors").read_bytes()
    train(marked, tmp_path / "b", Plan(pool="mean", model=toy.model, members=3, seed=1))
    assert (tmp_path / "a" / "head.safetensors").read_bytes() != (tmp_path / "b" / "head.safetensors").read_bytes()


@pytest.mark.parametrize("loss", ["squares", "ordinal"])
def test_graded_scores_teach_by_every_loss(toy: Toy, tmp_path: Path, loss: Any) -> None:
    """Sentences of 0, 2 or 4 points, by their share of warm words."""
    graded = []
    for row in marked_rows(60):
        text, starts = row["completion"], [0, *(span["end"] + 1 for span in row["completion_spans"])]
        points = [4 if not any(span["start"] == s for span in row["completion_spans"]) else 0 for s in starts[:1]]
        graded.append(
            {
                "prompt": row["prompt"],
                "completion": text,
                "completion_spans": [{**span, "score": 0} for span in row["completion_spans"]]
                + ([{"start": 0, "end": 3, "aspect": "tone", "score": points[0]}] if points[0] else []),
                "score_range": [0, 4],
            }
        )
    told = train(
        jsonl(tmp_path / "graded.jsonl", graded),
        tmp_path / "head",
        Plan(pool="mean", model=toy.model, members=3, loss=loss),
    )
    assert (told["loss"], told["unmarked"]) == (loss, "unjudged")
    assert told["unseen"]["tone/auc"] > 0.9


def test_pairs_and_labelled_answers(toy: Toy, tmp_path: Path) -> None:
    told = train(toy.pairs, tmp_path / "pairs", Plan(model=toy.model, members=3))
    assert (told["learn"], told["aspects"], told["loss"], told["pool"]) == ("pairs", [""], "pairs", "mean")
    found = evaluate(f"head:path={tmp_path / 'pairs'}", toy.held_out)
    assert found.metrics["pairs/accuracies"] > 0.85
    assert found.reliability == {}
    told = train(toy.labelled, tmp_path / "labels", Plan(pool="mean", model=toy.model, members=3))
    assert (told["learn"], told["loss"]) == ("answers", "likelihood")
    found = evaluate(f"head:path={tmp_path / 'labels'}", toy.labelled, split="train")
    assert found.metrics["overall/auc"] > 0.9


@pytest.mark.parametrize("learning", sorted(head_torch.LEARNERS))
def test_every_way_of_learning_makes_a_head(toy: Toy, marked: str, tmp_path: Path, learning: str) -> None:
    options = ":layers=[6],epochs=30,lr=2e-2,batch=20" if learning == "equilibrium" else ":steps=30"
    told = train(marked, tmp_path / "head", Plan(pool="mean", model=toy.model, members=2, learning=learning + options))
    assert (told["learning"], len(told["options"])) == (learning, options.count("="))
    assert told["unseen"]["tone/auc"] > 0.8
    found = evaluate(f"head:path={tmp_path / 'head'}", marked)
    assert found.metrics["tone/auc"] > 0.8


def test_a_rule_is_measured_as_a_head_is(toy: Toy, marked: str) -> None:
    words = "measure=match,pattern='(?i)\\b(bad|cold|rude|never|no|go)\\b',want=absent"
    found = evaluate(f"rules:{words}", marked)
    assert found.metrics["tone/auc"] == found.metrics["tone/accuracies"] == 1
    pairs = evaluate(f"rules:{words}", toy.held_out)
    assert pairs.metrics["pairs/accuracies"] == 1
    assert "tone/auc" not in pairs.metrics


@pytest.mark.parametrize(
    ("plan", "error", "why"),
    [
        ({"aspects": ("tune",)}, SpecError, "no span judges 'tune'. Did you mean 'tone'"),
        ({"learn": "pairs"}, DataError, "learn=pairs does not go with labelled answers"),
        ({"learn": "answers", "aspects": ("tone",)}, SpecError, "learn=answers knows no aspects"),
        ({"learning": "backprob"}, SpecError, "Did you mean 'backprop'"),
        ({"learning": "backprop:hidden=3"}, SpecError, "learning backprop has no option 'hidden'"),
        ({"learning": "equilibrium:layers=[]"}, SpecError, "learning equilibrium:layers: .*at least 1 item"),
        ({"learning": "equilibrium:tied=true"}, SpecError, "learning equilibrium: tied weights ask for angle=0"),
        ({"members": 30}, DataError, "prompts with something judged are too few for 30 members"),
    ],
)
def test_what_cannot_be_taught_is_said(
    toy: Toy, marked: str, tmp_path: Path, plan: dict[str, Any], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        train(marked, tmp_path / "head", Plan(pool="mean", model=toy.model, **plan))
    assert not (tmp_path / "head").exists()


def test_a_folder_of_something_else_is_left_alone(toy: Toy, marked: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("dear")
    with pytest.raises(RunError, match="something else is there"):
        train(marked, tmp_path / "mine", Plan(pool="mean", model=toy.model))
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "dear"


def test_pairs_have_a_loss_of_their_own(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="pairs are not taught by squares"):
        train(toy.pairs, tmp_path / "head", Plan(pool="mean", model=toy.model, loss="squares"))


def test_rows_without_a_span_teach_no_segments(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no span judges anything"):
        train(toy.pairs, tmp_path / "head", Plan(pool="mean", model=toy.model, learn="segments"))


@pytest.mark.real
def test_people_s_error_marks_teach_a_real_model_s_states(smollm2: str, shared_data: Path, tmp_path: Path) -> None:
    """30 rows of qa_feedback and SmolLM2's middle layer: they are learnt. Of others 30 are too few to say anything
    (docs/rewards/head.md has figures)."""
    source = str(shared_data / "qa_feedback" / "spans_test.jsonl.gz")
    told = train(source, tmp_path / "head", Plan(model=smollm2, members=3), limit=30)
    assert (told["aspects"], told["pool"]) == (["factuality", "relevance"], "last")
    assert told["taught"]["pieces"] > 60
    assert 0 <= told["unseen"]["relevance/auc"] <= 1
    learnt = evaluate(f"head:path={tmp_path / 'head'}", source, limit=30).metrics
    assert learnt["factuality/auc_low"] > 0.8
    assert learnt["relevance/auc_low"] > 0.6
