"""segment: pieces that tile each answer, in the columns that scores are read beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grainline import rooms
from grainline.curation._seam import Bench
from grainline.data import load
from grainline.errors import DataError

PAIR = {
    "id": "a",
    "prompt": "Why?",
    "chosen": "Hello there. PI is 3.14! Is it? Yes.",
    "rejected": "No.\n```\na. b.\n```\nOk. So.",
}


def made(row: dict[str, Any], options: str = "") -> dict[str, Any]:
    spec = rooms.parse("curation", f"segment{options}")
    with spec.open(Bench(Path("nowhere"))) as step:
        ((found,),) = step([row])
    return dict(found)


def cut(row: dict[str, Any], side: str) -> list[str]:
    return [row[side][a:b] for a, b in row[f"{side}_segments"]]


def test_pieces_of_a_pair() -> None:
    found = made(PAIR)
    assert cut(found, "chosen") == ["Hello there. ", "PI is 3.14! ", "Is it? ", "Yes."]
    assert cut(found, "rejected") == ["No.\n", "```\na. b.\n```\n", "Ok. ", "So."]
    assert {key: value for key, value in found.items() if key in PAIR} == PAIR
    assert found["curation"] == [{"step": "segment"}]


@pytest.mark.real
def test_real_answers_are_tiled(shared_data: Path) -> None:
    import gzip

    with gzip.open(shared_data / "hh_harmless" / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [{**json.loads(line), "prompt": "What?", "id": "x"} for line in lines]
    assert len(rows) > 100
    for row in rows:
        found = made(row)
        for side in ("chosen", "rejected"):
            assert "".join(cut(found, side)) == row[side]


def test_training_reads_what_was_written(tmp_path: Path) -> None:
    """Pieces without scores say nothing; with scores beside them they are spans, where the pieces stand."""
    file = tmp_path / "rows.jsonl"
    found = made(PAIR)
    scored = found | {"id": "b", "aspect_names": ["truth"], "chosen_aspect_scores": [[1], [0], [None], [1]]}
    file.write_text(json.dumps(found) + "\n" + json.dumps(scored) + "\n", encoding="utf-8")
    plain, judged = load.read(str(file)).records
    assert plain.answers[0].spans == ()
    assert [(s.start, s.stop, s.score) for s in judged.answers[0].spans] == [(0, 13, 1), (13, 25, 0), (32, 36, 1)]


def test_other_rows() -> None:
    assert made({"id": "a", "prompt": "p", "completion": "One. Two.", "label": True})["completion_segments"] == [
        [0, 5],
        [5, 9],
    ]
    chat = {"id": "a", "messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "One. Two."}]}
    assert made(chat)["completion_segments"] == [[0, 5], [5, 9]]
    several = made(
        {"id": "a", "prompt": "p", "answers": ["One. Two.", {"text": "Ah.", "score": 2, "segments": [[0, 1]]}]}
    )
    assert several["answers"] == [
        {"segments": [[0, 5], [5, 9]], "text": "One. Two."},
        {"text": "Ah.", "score": 2, "segments": [[0, 1]]},  # what somebody judged is not cut anew
    ]
    scored = made(PAIR | {"chosen_segments": [[0, 3]], "chosen_aspect_scores": [[1]], "aspect_names": ["a"]})
    assert scored["chosen_segments"] == [[0, 3]]
    assert made(scored) == scored  # nothing left to cut: nothing to sign
    assert "rejected_segments" in scored
    turns = [
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "y"},
        {"role": "assistant", "content": "z"},
    ]
    talk = {"id": "a", "prompt": [{"role": "user", "content": "p"}], "chosen": turns, "rejected": "One. Two."}
    assert "chosen_segments" not in made(talk)


def test_rows_that_cannot_be_cut() -> None:
    with pytest.raises(DataError, match=r"a prompt: segments count from an explicit prompt.*convert"):
        made({"id": "a", "chosen": "Human: hi Assistant: One.", "rejected": "Human: hi Assistant: Two."})
    with pytest.raises(DataError, match="a: the row has no answer"):
        made({"id": "a", "prompt": "p"})
    with pytest.raises(DataError, match=r"a answers\[1\].text"):
        made({"id": "a", "prompt": "p", "answers": ["x", {"text": " "}]})


def test_option_language() -> None:
    german = PAIR | {"chosen": "Das ist z. B. gut. Oder?"}
    assert cut(made(german, ":language=de"), "chosen") == ["Das ist z. B. gut. ", "Oder?"]
    assert cut(made(PAIR | {"chosen": "空気を下へ。本当だ。"}, ":language=ja"), "chosen") == [
        "空気を下へ。",
        "本当だ。",
    ]


def test_option_language_column() -> None:
    german = PAIR | {"chosen": "Das ist z. B. gut. Oder?", "lang": "de"}
    assert len(cut(made(german, ":language_column=lang"), "chosen")) == 2
    assert made(PAIR, ":language_column=lang")["chosen_segments"] == made(PAIR)["chosen_segments"]
    with pytest.raises(DataError, match=r"a lang: 3 .int. is not text"):
        made(PAIR | {"lang": 3}, ":language_column=lang")


def test_option_shortest() -> None:
    found = made(PAIR | {"chosen": "1. Open it. Yes. So we go on from here. Ok."}, ":shortest=6")
    assert all(len(piece.strip()) >= 6 for piece in cut(found, "chosen"))
    assert "".join(cut(found, "chosen")) == found["chosen"]
    assert cut(made(PAIR | {"chosen": "Ok."}, ":shortest=6"), "chosen") == ["Ok."]
