"""``grainline peek``: what is shown is what will speak."""

from __future__ import annotations

import json
from typing import Any

import pytest

from _toy import Toy, jsonl
from grainline import cli
from grainline.cli.peek import _ground, parts
from grainline.types import Answer, AnswerTokens, Span

ROW = {
    "prompt": [{"role": "user", "content": "tell me of the sea"}],
    "chosen": "kind and warm. good song.",
    "rejected": "no never. bad door.",
    "aspect_names": ["tone", "truth"],
    "score_range": [0, 4],
    "chosen_segments": [[0, 15], [15, 25]],
    "chosen_aspect_scores": [[4, 4], [4, 2]],
    "rejected_segments": [[0, 10], [10, 19]],
    "rejected_aspect_scores": [[0, 2], [0, None]],
}


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["peek", *arguments])
    assert not caught.value.code
    return capsys.readouterr()


@pytest.fixture
def file(toy: Toy, tmp_path: Any) -> str:
    return jsonl(tmp_path / "fine.jsonl", [ROW, ROW | {"id": "second"}])


def test_segments_scores_and_weights(file: str, toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = json.loads(printed(capsys, file, "--model", toy.model, "-n", "1", "--json")[0])
    chosen, rejected = (row["answers"][side]["segments"] for side in ("chosen", "rejected"))
    assert [segment["text"] for segment in chosen] == ["kind and warm.", " good song."]
    assert [segment["score"] for segment in chosen] == [1.0, 0.75]
    assert [segment["weight"] for segment in chosen] == pytest.approx([1.0, 0.75])
    assert [segment["score"] for segment in rejected] == [0.25, 0.0]
    assert [segment["weight"] for segment in rejected] == pytest.approx([0.75, 1.0])
    assert rejected[0]["aspects"] == {"tone": 0.0, "truth": 0.5}
    assert rejected[1]["aspects"] == {"tone": 0.0}
    assert sum(segment["tokens"] for segment in chosen) == row["answers"]["chosen"]["tokens"]


def test_a_page(file: str, toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(capsys, file, "--model", toy.model, "-n", "2")
    assert "second" in out
    assert "tell me of the sea" in out
    assert "kind and warm.| good song." in out.replace("\n", "")
    assert ["1", "0.25", "0.75", "0.00", "0.50"] in [line.split()[:5] for line in out.splitlines()]
    assert not err


def test_any_supervision_and_data_without_spans(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(capsys, toy.pairs, "--model", toy.model, "--supervision", "sequence", "-n", "1", "--json")
    (row,) = json.loads(out)
    (segment,) = row["answers"]["chosen"]["segments"]
    assert (segment["weight"], segment["score"], segment["aspects"]) == (1.0, None, {})
    assert "no span in these rows" in printed(capsys, toy.pairs, "--model", toy.model, "-n", "1")[1]


def test_parts_of_equal_weight_stand_together() -> None:
    tokens = AnswerTokens((1, 2, 3, 4), ((0, 2), (2, 4), (4, 6), (6, 6)), (1.0, 1.0, -0.5, -0.5))
    found = parts(Answer("abcdef", (Span(0, 3, "a", 0.5), Span(5, 6, "b", 1.0))), tokens)
    assert [(p.text, p.weight, p.aspects) for p in found] == [("abcd", 1.0, {"a": 0.5}), ("ef", -0.5, {"b": 1.0})]


def test_louder_is_brighter_and_the_sign_shows() -> None:
    assert _ground(0.0) == "white on rgb(0,0,0)"
    loud, soft, fault = (_ground(w) for w in (1.0, 0.5, -1.0))
    assert len({loud, soft, fault}) == 3
    assert sum(map(int, loud[13:-1].split(","))) > sum(map(int, soft[13:-1].split(",")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl"),
        (["--supervision", "segmets"], "Did you mean 'segments'"),
        (["--supervision", "segments:by=word"], "by"),
        (["--model", "nowhere/model"], "nowhere/model"),
        (["--format", "helpster"], "Did you mean 'helpsteer'"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    arguments: list[str], message: str, file: str, toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments if arguments[0].endswith(".jsonl") else [file, *arguments]
    with pytest.raises(SystemExit) as caught:
        cli.main(["peek", *given, *([] if "--model" in given else ["--model", toy.model])])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
