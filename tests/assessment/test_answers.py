"""Generated answers of a run: both sides, benchmarks' files, draws, and going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import _sentences
from _toy import Toy
from grainline import models
from grainline.assessment import answers
from grainline.errors import ModelError
from grainline.runs import Run


def lines(run: Run, name: str) -> list[dict[str, Any]]:
    file = run.folder / "evaluation" / "test" / name
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_samples_are_the_answers_side_by_side(world: Any) -> None:
    both = {who: world.lines(f"answers-{who}.jsonl") for who in ("policy", "reference")}
    for i, line in enumerate(world.lines("samples.jsonl")):
        assert line["policy"] == both["policy"][i]["text"]
        assert line["reference"] == both["reference"][i]["text"]
        assert line["longer"] == len(line["policy"]) - len(line["reference"])
    tokens = [line["tokens"] for line in both["policy"]]
    (table,) = [x for x in world.facts()["families"]["generation"]["tables"]["lengths"] if x["who"] == "policy"]
    import numpy as np

    wanted = [np.mean(tokens), np.median(tokens), np.quantile(tokens, 0.1), np.quantile(tokens, 0.9)]
    assert [table[key] for key in ("mean", "median", "low", "high")] == pytest.approx(wanted)


def test_they_are_those_of_chat(world: Any) -> None:
    """The same prompt, asked as grainline chat asks it."""
    from grainline import conversation
    from grainline.generation import Manner

    speakers = conversation.load(world.run.recipe, world.run.adapter)
    line = next(x for x in world.lines("samples.jsonl") if not isinstance(x["prompt"], str))
    for voice in speakers.voices:
        question = conversation.asked(speakers.tokenizer, tuple(line["prompt"]), window=512, manner=Manner(12))
        *_, said = conversation.speak(voice, speakers.tokenizer, question, Manner(12))
        assert said == line[voice.name]


def test_mt_bench(copied: Any, toy: Toy, tmp_path: Path) -> None:
    rows = [{"question_id": 7, "category": "x", "turns": ["tell me of the sky", "and the sea?"]}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = copied()
    found = run.evaluate(toy.held_out, progress=False, prompts=str(tmp_path / "q.jsonl"), max_new_tokens=4)["test"]
    (said,) = lines(run, "mt_bench-policy.jsonl")
    turns = [line["policy"] for line in lines(run, "samples.jsonl")]
    assert said["choices"] == [{"index": 0, "turns": turns}]
    assert len(turns) == 2
    assert found["generation/prompts"] == 1


def test_mt_bench_is_answered_at_its_categories_temperatures(copied: Any, toy: Toy, tmp_path: Path) -> None:
    """Each as alone at that temperature, in both turns; a temperature that is given holds for all."""
    rows = [{"question_id": 7, "category": "writing", "turns": ["tell me of the sky", "and the sea?"]}]
    rows += [{"question_id": 8, "category": "math", "turns": ["tell me of the sky", "and the sea?"]}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options: dict[str, Any] = {"progress": False, "prompts": str(tmp_path / "q.jsonl"), "max_new_tokens": 8}

    def said(**more: Any) -> dict[str, dict[str, Any]]:
        run = copied()
        run.evaluate(toy.held_out, **options, **more)
        return {line["id"]: line for line in lines(run, "samples.jsonl")}

    own, cold, warm = said(), said(temperature=0), said(temperature=0.7)
    for id, other in (("7", warm), ("7/2", warm), ("8", cold), ("8/2", cold)):
        assert own[id]["policy"] == other[id]["policy"]
        assert own[id]["reference"] == other[id]["reference"]
    assert [line["temperature"] for line in own.values()] == [0.7, 0.7, 0.0, 0.0]
    assert warm["7"]["policy"] != cold["7"]["policy"]


def test_a_sentence_model_says_how_far_answers_are_apart(copied: Any, toy: Toy, tmp_path: Path) -> None:
    """Against its own ``encode`` and scikit-learn's cosine; other weights in the same folder are measured anew."""
    from sentence_transformers import SentenceTransformer
    from sklearn.metrics.pairwise import cosine_distances

    folder, run = _sentences.tiny(tmp_path, models.load_tokenizer(toy.model)), copied()
    options: dict[str, Any] = {"progress": False, "generate": 4, "max_new_tokens": 6, "embedding": str(folder)}
    found = run.evaluate(toy.held_out, **options)["test"]["generation/policy/embedding"]
    whole = SentenceTransformer(str(folder), device="cpu")
    apart = cosine_distances(whole.encode([line["policy"] for line in lines(run, "samples.jsonl")]))
    assert found == pytest.approx(apart.sum() / (len(apart) * (len(apart) - 1)), abs=1e-5)
    facts = json.loads((run.folder / "evaluation" / "test" / "facts.json").read_text(encoding="utf-8"))
    told = facts["families"]["generation"]
    assert told["options"]["embedding"] == str(folder)
    assert any(str(folder) in note and "sha256" in note for note in told["notes"])
    next(p for p in whole.parameters() if p.ndim == 2).data.neg_()
    whole.save(str(folder))
    assert run.evaluate(toy.held_out, **options)["test"]["generation/policy/embedding"] != found


@pytest.mark.parametrize("installed", [True, False])
def test_a_sentence_model_that_is_not_there(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from grainline.evaluation import vectors

    if not installed:
        monkeypatch.setattr(vectors.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="cannot be loaded" if installed else r"grainline\[select\]"):
        vectors.sentences("/no/such/folder", "cpu")


def test_alpaca_eval(copied: Any, toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"instruction": "sky", "dataset": "d"}] * 1), encoding="utf-8")
    run = copied()
    run.evaluate(toy.held_out, progress=False, prompts=str(tmp_path / "a.json"), max_new_tokens=4)
    file = run.folder / "evaluation" / "test" / "alpaca_eval-reference.json"
    (said,) = json.loads(file.read_text(encoding="utf-8"))
    assert (said["instruction"], said["generator"]) == ("sky", f"{run.folder.name}-reference")
    assert said["output"] == lines(run, "samples.jsonl")[0]["reference"]


def test_interrupted_answers_go_on(copied: Any, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    run, own, asked = copied(), answers.answers.answer, []
    monkeypatch.setattr(answers.answers, "PROMPTS", 2)
    options: dict[str, Any] = {"progress": False, "generate": 5, "max_new_tokens": 4, "draws": 2, "temperature": 1.0}

    def answer(speaker: Any, subject: Any, questions: Any, *more: Any, **further: Any) -> Any:
        asked.append(len(questions))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return own(speaker, subject, questions, *more, **further)

    monkeypatch.setattr(answers.answers, "answer", answer)
    with pytest.raises(KeyboardInterrupt):
        run.evaluate(toy.held_out, **options)
    before = sum(asked[:2])
    found = run.evaluate(toy.held_out, **options)
    assert sum(asked[3:]) == 2 * 5 * 2 - before  # both sides, five prompts, two draws
    assert found == copied().evaluate(toy.held_out, **options)
    assert len(lines(run, "samples.jsonl")) == 10
    assert {line["draw"] for line in lines(run, "samples.jsonl")} == {0, 1}


def test_a_condition_is_told_to_the_policy_alone(copied: Any, toy: Toy) -> None:
    run = copied()
    run.evaluate(
        toy.held_out, progress=False, generate=1, max_new_tokens=4, condition={"warmth": 9}, condition_style="tokens",
        condition_place="user", condition_scale=[1, 9],
    )  # fmt: skip
    (own,), (other,) = (lines(run, f"answers-{who}.jsonl") for who in ("policy", "reference"))
    assert own["prompt"][-1]["content"] == f"<warmth: 9> {other['prompt'][-1]['content']}"
    facts = json.loads((run.folder / "evaluation" / "test" / "facts.json").read_text(encoding="utf-8"))
    assert any("was told the condition" in note for note in facts["families"]["generation"]["notes"])
