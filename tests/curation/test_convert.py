"""convert: the same rows in other columns, as TRL's own conversions make them."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pytest
import transformers
import trl

from _steps import made
from grainline.data import load
from grainline.errors import DataError, SpecError

if TYPE_CHECKING:
    from _toy import Toy

USER, YES, NO = (
    {"role": role, "content": text} for role, text in (("user", "Why?"), ("assistant", "Yes."), ("assistant", "No."))
)
PLAIN = {"id": "a", "prompt": "Why?", "chosen": "Yes.", "rejected": "No."}
TALK = {"id": "a", "prompt": [USER], "chosen": [YES], "rejected": [NO]}
IMPLICIT = {"id": "a", "chosen": [USER, YES], "rejected": [USER, NO]}


def converted(row: dict[str, Any], options: str = "") -> list[dict[str, Any]]:
    """What becomes of the row, its history aside."""
    (found,) = made(f"convert{':' if options else ''}{options}", [row])
    return [{key: value for key, value in one.items() if key != "curation"} for one in found]


def records(folder: Path, rows: list[dict[str, Any]]) -> list[Any]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row | {"id": n}) + "\n" for n, row in enumerate(rows)), encoding="utf-8")
    return [record._replace(where="", id="") for record in load.read(str(file)).records]


def test_the_prompt_is_written_out_as_trl_does() -> None:
    assert converted(IMPLICIT) == [TALK]
    assert {"id": "a", **trl.extract_prompt({key: IMPLICIT[key] for key in ("chosen", "rejected")})} == TALK
    ((row,),) = made("convert", [IMPLICIT])
    assert row["curation"] == [{"step": "convert"}]


def test_a_pair_is_parted_as_trl_does() -> None:
    ours = converted(PLAIN, "kind=labelled")
    batch = {key: [PLAIN[key]] for key in ("prompt", "chosen", "rejected")}
    theirs = trl.data_utils._unpair_row(batch)
    assert [{key: row[key] for key in theirs} for row in ours] == [
        {key: values[n] for key, values in theirs.items()} for n in range(2)
    ]


@pytest.mark.parametrize("row", [PLAIN, TALK, IMPLICIT], ids=["plain", "talk", "implicit"])
@pytest.mark.parametrize("options", ["", "style=conversational", "style=standard", "prompt=implicit", "columns=trl"])
def test_training_reads_the_same(row: dict[str, Any], options: str, tmp_path: Path) -> None:
    """But for the style, which was asked for."""
    (before,), (after,) = records(tmp_path, [row]), records(tmp_path, converted(row, options))
    assert [answer.text.strip() for answer in after.answers] == [answer.text for answer in before.answers]
    assert (after.prompt if isinstance(after.prompt, str) else after.prompt[0]["content"]) == "Why?"
    if "style" in options:
        assert isinstance(after.prompt, str) == (options == "style=standard")


def test_what_columns_said_of_an_answer_goes_with_it() -> None:
    spans = [{"start": 0, "end": 3, "aspect": "x", "score": 1}]
    row = PLAIN | {"chosen_spans": spans, "rejected_uncertainty": 0.2, "source": "s"}
    chosen, rejected = converted(row, "kind=labelled")
    assert (chosen["completion_spans"], chosen["source"]) == (spans, "s")
    assert rejected["completion_uncertainty"] == 0.2
    assert not {"chosen_spans", "rejected_uncertainty", "completion_uncertainty"} & set(chosen)
    assert converted(row) == [row]


def test_steps_with_labels_become_an_answer_with_spans(tmp_path: Path) -> None:
    steps = {"id": "a", "prompt": "p", "completions": ["One.", "Two."], "labels": [True, False]}
    assert records(tmp_path, converted(steps)) == records(tmp_path, [steps])
    assert "completions" not in converted(steps)[0]


def test_answers_of_several_turns_stay_whole() -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}
    row = {"id": "a", "prompt": [USER], "chosen": [call, {"role": "tool", "content": "3"}, YES], "rejected": [NO]}
    assert converted(row) == [row]
    with pytest.raises(DataError, match="an answer of several turns has no plain form"):
        converted(row, "style=standard")


def test_option_kind() -> None:
    labelled = converted(PLAIN, "kind=labelled")
    assert [row["label"] for row in labelled] == [True, False]
    assert converted(PLAIN, "kind=completion") == [{"id": "a", "prompt": "Why?", "completion": "Yes."}]
    assert converted(PLAIN, "kind=messages") == [{"id": "a", "messages": [USER, YES]}]
    bad = {"id": "a", "prompt": "p", "completion": "No.", "label": False}
    assert made("convert:kind=completion", [bad]) == ["an undesirable answer"]
    assert converted({"id": "a", "messages": [USER, YES]}) == [{"id": "a", "prompt": [USER], "completion": [YES]}]
    with pytest.raises(DataError, match="a answers: a row of several answers is no pair yet"):
        converted({"id": "a", "prompt": "p", "answers": ["x", "y"]})


def test_option_style() -> None:
    assert converted(PLAIN, "style=conversational") == [TALK]
    assert converted(TALK, "style=standard") == [PLAIN]
    system = TALK | {"prompt": [{"role": "system", "content": "Be kind."}, USER]}
    with pytest.raises(DataError, match="a prompt: a prompt of several turns has no plain form"):
        converted(system, "style=standard")
    with pytest.raises(SpecError, match="messages are chat turns"):
        converted(PLAIN, "kind=messages,style=standard")


def test_option_prompt() -> None:
    assert converted(TALK, "prompt=implicit") == [IMPLICIT]
    assert converted(PLAIN, "prompt=implicit") == [{"id": "a", "chosen": "Why? Yes.", "rejected": "Why? No."}]
    with pytest.raises(DataError, match="a chosen_spans: counts from an explicit prompt"):
        converted(PLAIN | {"chosen_spans": [{"start": 0, "end": 1}]}, "prompt=implicit")
    with pytest.raises(SpecError, match="only a pair"):
        converted(PLAIN, "prompt=implicit,kind=labelled")


def test_option_columns() -> None:
    row = PLAIN | {"source": "s", "margin": 2, "chosen_spans": [{"start": 0, "end": 1}], "curation": [{"step": "x"}]}
    assert made("convert:columns=trl", [row]) == [[PLAIN | {"margin": 2}]]
    assert converted(row)[0]["source"] == "s"
    steps = {"id": "a", "prompt": "p", "completions": ["One.", "Two."], "labels": [True, False]}
    assert [row.keys() for row in converted(steps, "columns=trl")] == [{"id", "prompt", "completion", "label"}]


@pytest.mark.real
@pytest.mark.parametrize("kind", ["same", "labelled", "completion", "messages"])
def test_real_rows_are_read_back_equal(kind: str, shared_data: Path, tmp_path: Path) -> None:
    """Pairs of several turns, out in TRL's columns and in again: the same conversations and verdicts."""
    rows = hh(shared_data)
    before = records(tmp_path, rows)
    after = records(tmp_path, [one for row in rows for one in converted(row, f"kind={kind},columns=trl")])

    def said(found: list[Any]) -> list[Any]:
        sides = [(r.prompt, a.text, n == 0 if r.is_pair else r.label) for r in found for n, a in enumerate(r.answers)]
        return [one for one in sides if one[2] or kind in ("same", "labelled")]

    assert said(after) == said(before)
    assert [record.is_pair for record in after] == [kind == "same"] * len(after)


@pytest.mark.real
def test_trls_trainers_take_real_rows(shared_data: Path, toy: Toy, tmp_path: Path) -> None:
    """DPO, KTO, SFT and the reward trainer prepare them: columns checked, each row tokenised. The prompt is theirs."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(toy.model)
    rows = hh(shared_data)[:8]
    explicit, implicit = "columns=trl", "prompt=implicit,columns=trl"
    tried = [
        (trl.DPOTrainer, trl.DPOConfig, explicit, {}),
        (trl.DPOTrainer, trl.DPOConfig, implicit, {}),
        (trl.RewardTrainer, trl.RewardConfig, implicit, {}),
        (trl.KTOTrainer, trl.KTOConfig, "kind=labelled,columns=trl", {"per_device_train_batch_size": 2}),
        (trl.SFTTrainer, trl.SFTConfig, "kind=completion,columns=trl", {}),
        (trl.SFTTrainer, trl.SFTConfig, "kind=messages,columns=trl", {}),
    ]
    for trainer, config, options, more in tried:
        given = datasets.Dataset.from_list([one for row in rows for one in converted(row, options)])
        classifies = trainer is trl.RewardTrainer
        auto = transformers.AutoModelForSequenceClassification if classifies else transformers.AutoModelForCausalLM
        model = auto.from_pretrained(toy.model, **({"num_labels": 1} if classifies else {}))
        how = config(output_dir=str(tmp_path), report_to=[], use_cpu=True, bf16=False, max_length=2048, **more)
        made = trainer(model=model, args=how, train_dataset=given, processing_class=tokenizer)
        assert len(made.train_dataset) == len(given)
        if trainer is trl.DPOTrainer:
            asked = tokenizer.apply_chat_template(rows[0]["prompt"], add_generation_prompt=True, return_dict=False)
            assert made.train_dataset[0]["prompt_ids"] == asked


def hh(shared_data: Path) -> list[dict[str, Any]]:
    with gzip.open(shared_data / "hh_harmless" / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, 60)]
