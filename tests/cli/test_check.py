"""``grainline check``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grainline import cli
from grainline.cli.check import SHOWN, in_words
from grainline.data.lengths import Bias

GOOD = [
    {"prompt": [{"role": "user", "content": f"Question {n}?"}], "chosen": f"Yes, {n}.", "rejected": f"No, not {n}."}
    for n in range(30)
]


def checked(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["check", *map(str, arguments)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return int(caught.value.code or 0), said.out, said.err


def written(folder: Path, *rows: Any) -> Path:
    file = folder / "d.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_the_packaged_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = checked(capsys, "house", "--against", "house", "--split", "train")
    assert (status, err) == (0, "")
    assert "no prompt is shared with the test set" in out
    assert "'the longer answer wins' is right on " in out
    assert {"safety", "clarity", "correctness"} <= set(out.split())


def test_a_set_against_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = written(tmp_path, *GOOD)
    status, out, _ = checked(capsys, file, "--against", file)
    assert status == 0
    assert "where (d.jsonl)" in out
    assert "1 ~ 1, 2 ~ 2," in out
    assert f"{SHOWN} ~ {SHOWN} and 10 more" in " ".join(out.split())
    assert out.endswith("d.jsonl: 30 warnings.\n")


def test_unusable_rows_are_exit_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = written(tmp_path, GOOD[0], {**GOOD[1], "chosen": ""}, GOOD[2], {**GOOD[3], "rejected": 5})
    status, out, err = checked(capsys, file)
    assert status == 2
    assert err == (
        "error: d.jsonl: 2 of 4 rows cannot be used. Mend them, or set skip_bad_rows=true to leave them out.\n"
    )
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "error 1 the text is empty Remove the row or write the text. 2 chosen" in lines
    assert "error 1 a value of type int is not text 4 rejected" in lines
    assert lines[-1] == "d.jsonl: 2 errors."


def test_what_all_rows_of_a_kind_say_is_said_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Which column is missing; where rows differ in it, what they have in common."""
    misspelt = [{"prompt": "a?", "choosen": "b", "rejected": "c"}] * 3
    assert "column 'chosen' is missing or null" in checked(capsys, written(tmp_path, *misspelt))[1]
    other = {"prompt": "a?", "chosen": "b", "rejectd": "c"}
    out = checked(capsys, written(tmp_path, *misspelt, other))[1]
    assert "column … is missing or null" in out
    assert "column 'chosen' is" not in out


def test_kinds_that_mix(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = written(tmp_path, GOOD[0], {"prompt": "a?", "completion": "b", "label": True})
    status, _, err = checked(capsys, file)
    assert status == 2
    assert err.startswith("error: d.jsonl: pairs and labelled rows are mixed: d.jsonl:1 is a pair")


def test_json_holds_all(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    swapped = {**GOOD[0], "chosen": GOOD[0]["rejected"], "rejected": GOOD[0]["chosen"]}
    bad = [{**GOOD[n], "chosen": ""} for n in range(25)]
    status, out, _ = checked(capsys, written(tmp_path, *GOOD, swapped, *bad), "--json")
    found = json.loads(out)
    assert status == 2
    assert found["counts"] == {
        "rows": 56, "usable": 31, "unusable": 25, "different prompts": 30, "pairs": 31,
    }  # fmt: skip
    errors, warnings = found["problems"]
    assert (errors["severity"], errors["count"], len(errors["rows"])) == ("error", 25, 25)
    assert warnings["rows"] == [
        {
            "where": "d.jsonl:31",
            "what": "the same two answers as in d.jsonl:1, preferred the other way round.",
            "instead": "Remove both, or keep the one that is right.",
            "beside": "d.jsonl:1",
        }
    ]
    assert found["length_bias"]["share"] == 1 / 31
    assert (found["max_length"], found["test_rows"], found["tokenizer"]) == (None, None, [])


def test_with_a_model(toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = checked(capsys, toy.pairs, "--model", toy.model, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["max_length"] == 1024
    assert found["length_bias"]["unit"] == "tokens"
    status, out, _ = checked(capsys, toy.pairs, "--model", toy.model)
    assert status == 0
    assert "tokens" in out


def test_what_cannot_be_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = written(tmp_path, GOOD[0])
    (tmp_path / "t").mkdir()
    test = written(tmp_path / "t", GOOD[1], {**GOOD[2], "chosen": ""})
    status, out, err = checked(capsys, file, "--against", test)
    assert (status, err) == (0, "note: 1 rows of the test set d.jsonl cannot be used; their prompts are not compared\n")
    assert out.endswith("d.jsonl: no problem found; no prompt is shared with the test set (1 rows).\n")
    test = written(tmp_path / "t", {**GOOD[2], "chosen": ""})
    status, _, err = checked(capsys, file, "--against", test)
    assert status == 2
    assert "no row of the test set can be used" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nowhere.jsonl"], "nowhere.jsonl"), (["house", "--split", "tran"], "Did you mean 'train'?")],
)
def test_mistakes(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = checked(capsys, *arguments)
    assert (status, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    ("share", "low", "high", "said"),
    [
        (0.61, 0.58, 0.64, "61 % [58, 64] of 900 pairs (counted in characters); chosen answers are 25 % longer in the "
         "mean: a model can learn to be longer instead of better."),
        (0.55, 0.52, 0.58, "a slight lean to the longer answer."),
        (0.45, 0.42, 0.48, "a slight lean to the shorter answer."),
        (0.51, 0.48, 0.54, "length says nothing of who wins."),
        (0.501, 0.4995, 0.5025, "50.1 % [50.0, 50.2]"),
    ],
)  # fmt: skip
def test_length_bias_in_words(share: float, low: float, high: float, said: str) -> None:
    assert said in in_words(Bias("characters", 900, 0, share, low, high, 50.0, 40.0))


def test_ties_in_words() -> None:
    said = in_words(Bias("tokens", 10, 4, 0.5, 0.2, 0.8, 30.0, 40.0))
    assert "(counted in tokens, 4 of them ties that count one half); chosen answers are 25 % shorter" in said


def test_without_a_model_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom grainline import cli\ntry:\n    cli.main(['check', 'house', '--against', 'house'])\n"
        "finally:\n    assert not {'torch', 'transformers', 'datasets', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.real
def test_real_tokens(shared_data: Path, smollm2: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = checked(capsys, shared_data / "pandalm", "--model", smollm2, "--against", shared_data / "pandalm")
    assert status == 0
    assert "no prompt is shared with the test set (150 rows)" in out
    assert "Tokenizer: The chat template writes instructions of its own" in out
