"""A run's files, whole, missing or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from _runs import Make
from grainline.errors import RunError
from grainline.report import read


def test_a_whole_run(make: Make) -> None:
    files = read.run(make())
    assert (files.name, len(files.steps), [line["step"] for line in files.looks]) == ("first", 30, [0, 15, 30])
    assert files.evaluations == []
    assert files.weights == 1500


def test_what_is_missing_is_empty(make: Make) -> None:
    gone = dict.fromkeys(("metrics_jsonl", "results_json", "provenance_json", "samples_jsonl"))
    files = read.run(make(**gone))
    assert (files.steps, files.looks, files.results, files.provenance, files.samples) == ([], [], None, {}, [])


def test_a_last_line_cut_short_is_passed_over(make: Make) -> None:
    assert len(read.run(make(metrics_jsonl='{"step": 1, "loss": 2.0}\n{"step": 2, "lo')).steps) == 1


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("recipe.yaml", "model: [", "recipe.yaml: unreadable"),
        ("recipe.yaml", "- a", "recipe.yaml: not a mapping"),
        ("metrics.jsonl", '{"step": \n{"step": 1}\n', "metrics.jsonl:1: unreadable"),
        ("metrics.jsonl", "[1]\n", "metrics.jsonl:1: not an object"),
        ("metrics.jsonl", '{"loss": 1.0}\n', "metrics.jsonl:1: there is no step"),
        ("metrics.jsonl", '{"step": 1, "loss": "low"}\n', "metrics.jsonl:1: loss is not a number"),
        ("metrics.jsonl", '{"step": 1, "loss": true}\n', "metrics.jsonl:1: loss is not a number"),
        ("metrics.jsonl", f'{{"step": 1{"0" * 400}}}\n', "metrics.jsonl:1: step is not a number"),
        ("metrics.jsonl", '{"step": 1.5}\n', "metrics.jsonl:1: step is not a whole number"),
        ("metrics.jsonl", '{"step": NaN}\n', "metrics.jsonl:1: step is not a whole number"),
        ("metrics.jsonl", '{"step": -1}\n', "metrics.jsonl:1: step is not a whole number"),
        ("results.json", "", "results.json: unreadable"),
        ("results.json", "{}", "results.json: there is no step"),
        ("provenance.json", '{"a": ', "provenance.json: unreadable"),
        ("samples.jsonl", '{"prompt": "a"}\n', "samples.jsonl:1: there is no policy"),
        ("samples.jsonl", '{"policy": 3}\n', "samples.jsonl:1: policy is not text"),
        ("warnings.jsonl", '{"seen": "a"}\n', "warnings.jsonl:1: instead is not text"),
    ],
)
def test_a_damaged_file_is_named(file: str, text: str, said: str, make: Make) -> None:
    folder = make()
    (folder / file).write_text(text)
    with pytest.raises(RunError) as caught:
        read.run(folder)
    assert said in str(caught.value)


def test_bytes_that_are_not_text(make: Make) -> None:
    folder = make()
    (folder / "metrics.jsonl").write_bytes(b"\xff\xfe{")
    with pytest.raises(RunError, match=r"metrics.jsonl: not UTF-8"):
        read.run(folder)


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no recipe.yaml here: not a run"):
        read.run(tmp_path)


def test_names_are_as_long_as_they_must_be(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two, three = make("a/run"), make("b/run"), make("other")
    assert [files.name for files in read.runs([one, two, three])] == ["a/run", "b/run", f"{tmp_path.name}/other"]
    assert [files.name for files in read.runs([one, three, one])] == ["run", "other"]


def test_what_is_not_there_is_none() -> None:
    assert read.dig({"a": {"b": 1}}, "a", "b") == 1
    assert read.dig({"a": 1}, "a", "b") is None
    assert read.dig(None, "a") is None
