"""The model card: what the hub reads at its head, what people read below."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import EvalResult, ModelCard

import _evaluations
from _runs import NASTY, RECIPE, Make, nasty
from grainline.errors import RunError
from grainline.report.card import card

if TYPE_CHECKING:
    from grainline.runs import Run


def test_the_hub_reads_it(make: Make) -> None:
    found = ModelCard(card(make()))
    assert found.data.base_model == "org/base-model"
    assert found.data.library_name == "peft"
    assert found.data.pipeline_tag == "text-generation"
    assert found.data.tags == ["grainline", "dpo", "sft", "lora"]
    assert found.data.license is None
    accuracy, margin = found.data.eval_results
    assert (accuracy.dataset_type, accuracy.dataset_split, accuracy.metric_value) == ("org/held-out", "test", 0.8)
    assert (margin.metric_type, margin.metric_value) == ("margin", 4 * (0.8 - 0.5))


def test_what_was_measured_later_is_in_the_index_and_below(make: Make) -> None:
    run = make(metrics_jsonl=None, results_json='{"step": 30}')
    _evaluations.write(run)
    _evaluations.write(run, "private", facts_json=json.dumps(_evaluations.facts() | {"data": {"path": "mine.jsonl"}}))
    found = ModelCard(card(run))
    results = {(result.dataset_type, result.metric_name): result.metric_value for result in found.data.eval_results}
    margins = [row["rewards/margins"] for row in _evaluations.rows()]
    assert results["org/held-out", "Accuracy of implied rewards"] == sum(m > 0 for m in margins) / len(margins)
    assert {dataset for dataset, _ in results} == {"org/held-out"}
    assert "0.875 [0.550, 0.950]" in found.text
    assert "#### What was forgotten" in found.text
    assert all(isinstance(result, EvalResult) and result.task_type for result in found.data.eval_results)


def test_people_read_it(make: Make) -> None:
    text = card(make())
    assert "Held-out accuracy rose from 0.50 to 0.80 [0.70, 0.90]" in text
    assert "AutoPeftModelForCausalLM" in text
    assert "4,096" in text


def test_public_data_is_named_and_paths_are_not(make: Make, tmp_path: Path) -> None:
    recipe = RECIPE.replace("- path: pairs.jsonl", "- path: org/pairs\n- path: /home/me/secret/mine.jsonl")
    text = card(make(recipe_yaml=recipe.replace("org/base-model", str(tmp_path / "private" / "model"))))
    found = ModelCard(text)
    assert found.data.datasets == ["org/pairs"]
    assert found.data.base_model is None
    assert "mine.jsonl" in text
    assert "/home/me" not in text
    assert str(tmp_path) not in text


def test_what_the_card_said_already_is_kept(make: Make) -> None:
    folder = make()
    head = "---\nbase_model: org/true-base\nlicense: apache-2.0\nlanguage: en\ntags: [mine]\n---\n# old\n"
    (folder / "adapter" / "README.md").write_text(head)
    found = ModelCard(card(folder))
    assert (found.data.base_model, found.data.license, found.data.language) == ("org/true-base", "apache-2.0", "en")
    assert found.data.tags == ["grainline", "dpo", "sft", "lora", "mine"]
    assert "# old" not in found.text
    (folder / "adapter" / "README.md").write_text(card(folder))
    assert card(folder) == (folder / "adapter" / "README.md").read_text()


@pytest.mark.parametrize("old", ["", "no head", "---\n[broken\n---\n", "---\n- a list\n---\n", "---\n---\n"])
def test_a_card_without_a_head(old: str, make: Make) -> None:
    folder = make()
    (folder / "adapter" / "README.md").write_text(old)
    assert ModelCard(card(folder)).data.base_model == "org/base-model"


def test_a_whole_model(make: Make) -> None:
    folder = make(recipe_yaml=RECIPE.replace("lora:rank=4", "none"))
    (folder / "adapter" / "adapter_config.json").unlink()
    found = ModelCard(card(folder))
    assert found.data.library_name == "transformers"
    assert "none" not in found.data.tags
    assert "AutoModelForCausalLM" in found.text


def test_a_real_run(toy_run: Run) -> None:
    found = ModelCard(card(toy_run.folder))
    assert found.data.tags == ["grainline", "dpo", "lora"]
    assert str(toy_run.folder.parent) not in found.content


def test_hostile_text_and_no_run(make: Make, tmp_path: Path) -> None:
    folder = nasty(tmp_path)
    (folder / "recipe.yaml").write_text("model: " + json.dumps(NASTY) + "\ndata: " + json.dumps([NASTY, {"path": 3}]))
    text = card(folder)
    text.encode()
    assert "<script" not in ModelCard(text).text.replace("\\<script", "")
    with pytest.raises(RunError):
        card(tmp_path / "nowhere")
