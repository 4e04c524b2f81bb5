"""What is written: whole, by its own rows, measured once, and going on after an interruption."""

from __future__ import annotations

import json
import math
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _toy import Toy
from conftest import ROOT
from grainline.assessment import facts, work
from grainline.errors import RunError, SpecError
from grainline.evaluation.about import about
from grainline.evaluation.measures import FAMILIES
from grainline.runs import align

PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_all_families_are_there(world: Any) -> None:
    facts = world.facts()
    assert list(facts["families"]) == [family for family in FAMILIES if family != "masks"]  # DPO learns none
    assert facts["of"] == {"kind": "run", "name": world.run.folder.name}
    assert {k: v for k, v in facts["metrics"].items() if v is not None} == world.figures
    for family in facts["families"].values():
        assert set(family) == {"key", "against", "seconds", "options", "figures", "tables", "notes"}
        for table in family["tables"].values():
            assert len({tuple(line) for line in table}) <= 1  # all lines of a table have the same keys


def test_every_figure_is_explained(world: Any) -> None:
    """In the file, and on the page."""
    names = [name for name in world.figures if not re.search(r"_(low|high|p)$", name)]
    assert [name for name in names if not about(name)] == []
    assert set(world.facts()["about"]) >= set(names)


def test_tables_and_files_are_on_the_page(world: Any) -> None:
    for family, said in world.facts()["families"].items():
        for name, table in said["tables"].items():
            (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {family} / `{name}` |")]
            for key in table[0] if table else ():
                assert f"`{key}`" in line, f"{family} / {name}: {key}"
    for file in world.folder.iterdir():
        if file.is_file():
            stem = re.sub(r"^answers-.*", "answers-", file.name)
            assert stem in PAGE, file.name


def test_what_evaluate_writes_is_read(world: Any, copied: Any, toy: Toy) -> None:
    """Of a real run in all families, and of another against it, the page shows every figure, pair and sample."""
    from grainline.report import words

    def said(html: str) -> str:
        return unescape(html).replace("\xa0", " ")

    shown, figures = said(world.run.report().html), world.figures
    for name, value in figures.items():
        if (
            name == "rows"
            or name.endswith(("_low", "_high", "_p"))
            or re.fullmatch("rewards/.+/(margins|accuracies)", name)
        ):
            continue  # bounds stand beside their figure, aspects in a table
        row = re.search(f"<code>{re.escape(name)}</code></th><td[^>]*>([^<]*)<", shown)
        assert row is not None, name
        assert row[1].startswith((words.interval(name, figures), words.whole(value))), name
    for line in world.lines("tokens.jsonl"):
        assert f"{line['id']}: margin {words.signed(line['margin'])}" in shown
    (pair, *_) = world.lines("tokens.jsonl")
    assert f'data-a="{words.signed(pair["answers"][0]["reward"][0])}"' in shown
    for line in world.lines("samples.jsonl"):
        assert (
            words.harmless(line["prompt"] if isinstance(line["prompt"], str) else line["prompt"][-1]["content"])
            in shown
        )
    for family, title in (
        ("geometry", "Angle by layer"),
        ("control", "the level that answers have"),
        ("documents", "By place of the document"),
    ):
        assert family in world.facts()["families"]
        assert title in shown
    other = copied()
    other.evaluate({"test": toy.held_out}, progress=False, against=world.run)
    both = said(other.report(world.run).html)
    assert f"less {world.run.folder.name}" in both
    assert 'id="run-2"' in both


# ------------------------------------------------------------------------------------ recomputed by hand, from the rows


def test_six_figures_and_more_by_hand(world: Any) -> None:
    """From the lines alone, in the words of the page."""
    rows, found = world.lines("rows.jsonl"), world.figures
    ratio = {
        role: [sum(row[role]["policy"]) - sum(row[role]["reference"]) for row in rows]
        for role in ("chosen", "rejected")
    }
    margin = [0.1 * (c - r) for c, r in zip(ratio["chosen"], ratio["rejected"], strict=True)]
    assert found["rewards/margins"] == pytest.approx(np.mean(margin), abs=1e-5)
    assert found["rewards/accuracies"] == np.mean([m > 0 for m in margin])
    mean = {role: [np.mean(row[role]["policy"]) for row in rows] for role in ("chosen", "rejected")}
    assert found["likelihood/accuracies"] == np.mean(np.array(mean["chosen"]) > mean["rejected"])
    assert found["calibration/brier"] == pytest.approx(np.mean([1 / (1 + math.exp(m)) ** 2 for m in margin]), abs=1e-5)
    assert found["displacement/chosen"] == pytest.approx(np.mean(ratio["chosen"]), abs=1e-9)
    assert found["displacement/both_fall"] == np.mean(
        (np.array(ratio["chosen"]) < 0) & (np.array(ratio["rejected"]) < 0)
    )
    assert found["kl/chosen_per_token"] == pytest.approx(np.mean([k for row in rows for k in row["chosen"]["kl"]]))

    def first(answer: dict[str, Any]) -> float:
        return sum(answer["policy"][:4]) - sum(answer["reference"][:4])

    share = sum(first(row["chosen"]) - first(row["rejected"]) for row in rows) / (sum(margin) / 0.1)
    assert found["displacement/first_4"] == pytest.approx(share)
    samples = world.lines("samples.jsonl")
    assert found["generation/win_rate"] == np.mean([line["win"] for line in samples])
    words = [word for line in samples for word in line["policy"].split()]
    assert found["generation/policy/distinct_1"] == len(set(words)) / len(words)
    assert found["generation/kl"] == pytest.approx(np.mean([line["kl"] for line in samples]))
    neutral = world.lines("neutral.jsonl")
    loss = -sum(line["policy"] for line in neutral) / sum(line["tokens"] for line in neutral)
    assert found["forgetting/perplexity"] == pytest.approx(math.exp(loss))
    geometry = world.lines("geometry.jsonl")
    assert found["geometry/angle"] == pytest.approx(np.mean([line["angle"] for line in geometry]))
    levels = [line for line in world.lines("levels.jsonl") if line["level"] is not None]
    assert found["control/warm/error"] == pytest.approx(np.mean([abs(x["level"] - x["requested"]) for x in levels]))
    documents = world.lines("documents.jsonl")
    at = [np.mean([line["right"] for line in documents if line["place"] == place]) for place in (0, 1)]
    assert found["documents/fluctuation"] == pytest.approx(np.std(at))


# -------------------------------------------------------------------------------------------------- once, and going on


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each reading was of."""
    asked: list[int] = []
    own = facts.Bench.rows

    def rows(self: Any, examples: Any, look: Any) -> Any:
        asked.append(len(examples))
        return own(self, examples, look)

    monkeypatch.setattr(facts.Bench, "rows", rows)
    return asked


def test_what_is_measured_is_not_measured_again(copied: Any, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = copied(), counted(monkeypatch)
    first = run.evaluate(toy.held_out, progress=False)
    assert asked == [16]
    assert run.evaluate(toy.held_out, progress=False) == first
    assert asked == [16]
    run.evaluate(toy.held_out, progress=False, seed=1)  # other resamples of the same rows
    assert asked == [16]
    run.evaluate({"test": toy.pairs}, progress=False)  # other rows
    assert asked == [16, 40]


def test_a_judge_with_another_file_judges_anew(
    copied: Any, toy: Toy, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its option still names the same file, which now holds another reward: its verdicts are asked for once more, and
    nothing else is measured again."""
    run, asked, file = copied(), counted(monkeypatch), tmp_path / "mine.py"
    text = Path(world.rewards).read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")

    def score() -> float:
        how = {"generate": 3, "max_new_tokens": 6, "judge": f"{file}:Warmth"}
        return run.evaluate(toy.held_out, progress=False, **how)["test"]["generation/score/policy"]

    warm = score()
    answers = run.folder / "evaluation" / "test" / "answers-policy.jsonl"
    spoken = answers.read_bytes()
    assert score() == warm > 0
    file.write_text(text.replace("Scores(((share,),))", "Scores(((1 - share,),))"), encoding="utf-8")
    assert score() == pytest.approx(1 - warm)
    assert answers.read_bytes() == spoken
    assert asked == [16]


def test_half_done_rows_are_kept(copied: Any, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = copied(), counted(monkeypatch)
    monkeypatch.setattr(work, "WINDOW", 5)
    own, calls = facts.Bench.rows, iter(range(99))

    def interrupted(self: Any, examples: Any, look: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return own(self, examples, look)

    monkeypatch.setattr(facts.Bench, "rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.evaluate(toy.held_out, progress=False)
    assert sum(asked) == 10
    found = run.evaluate(toy.held_out, progress=False)
    assert sum(asked) == 16
    assert found == copied().evaluate(toy.held_out, progress=False)


def test_another_adapter_is_measured_anew(copied: Any, toy: Toy, tmp_path: Path) -> None:
    run = copied()
    first = run.evaluate(toy.held_out, progress=False, families=["preference", "forgetting"])["test"]
    weak = align(**toy.choices(tmp_path / "weak", steps=1))
    shutil.rmtree(run.adapter)
    shutil.copytree(weak.adapter, run.adapter)
    again = run.evaluate(toy.held_out, progress=False)["test"]
    assert again["rewards/margins"] < first["rewards/margins"] / 2
    assert "forgetting/perplexity" not in again  # that was the other's


def test_a_rival_is_named_where_it_is_compared_with(copied: Any, toy: Toy, tmp_path: Path) -> None:
    run, weak = copied(), align(**toy.choices(tmp_path / "weak", steps=1))
    run.evaluate(toy.held_out, progress=False, against=weak)
    facts = json.loads((run.folder / "evaluation" / "test" / "facts.json").read_text(encoding="utf-8"))
    assert facts["against"] == facts["families"]["preference"]["against"] == {"kind": "run", "name": "weak"}
    assert facts["families"]["displacement"]["against"] is None
    found = run.evaluate(toy.held_out, progress=False)["test"]
    assert not [name for name in found if name.startswith("against/")]


def test_what_is_only_read_keeps_the_time_at_which_it_was_measured(copied: Any, toy: Toy) -> None:
    run = copied()
    run.evaluate(toy.held_out, progress=False)
    file = run.folder / "evaluation" / "test" / "facts.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"time": "2', '"time": "1'), encoding="utf-8")
    before = file.read_bytes()
    run.evaluate(toy.held_out, progress=False)
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["{", '{"subject": 0, "families": {}}', "[]", '{"format": 1}'])
def test_facts_that_cannot_be_read_are_written_again(text: str, copied: Any, toy: Toy) -> None:
    run = copied()
    wanted = run.evaluate(toy.held_out, progress=False)
    (run.folder / "evaluation" / "test" / "facts.json").write_text(text, encoding="utf-8")
    assert run.evaluate(toy.held_out, progress=False) == wanted


# ---------------------------------------------------------------------------------------- a model alone; another run


def test_a_model_alone(toy: Toy, tmp_path: Path, world: Any) -> None:
    found = facts.evaluate_model(
        toy.model, toy.held_out, out=tmp_path, progress=False, families=["preference", "displacement", "forgetting"],
        generate=3, max_new_tokens=5,
    )["test"]  # fmt: skip
    stored = json.loads((tmp_path / "evaluation" / "test" / "facts.json").read_text(encoding="utf-8"))
    assert stored["of"] == {"kind": "model", "name": "model"}
    assert list(stored["families"]) == ["preference", "generation", "forgetting"]
    assert "rewards/margins" not in found
    rows = [sum(row["chosen"]["reference"]) for row in world.lines("rows.jsonl")]
    assert found["logps/chosen"] == pytest.approx(np.mean(rows), abs=1e-4)  # the run's reference
    assert found["forgetting/perplexity"] == pytest.approx(world.figures["forgetting/perplexity_before"], rel=1e-5)


def test_two_runs(copied: Any, toy: Toy, tmp_path: Path) -> None:
    """A run against its own untrained start: it wins by what it has learnt."""
    weak = align(**toy.choices(tmp_path / "weak", steps=1, optimizer="adamw:lr=1e-6"))
    run = copied()
    found = run.evaluate(toy.held_out, progress=False, against=weak.folder, generate=2, max_new_tokens=4)["test"]
    apart = found["rewards/margins"] - weak.evaluate(toy.held_out, progress=False)["test"]["rewards/margins"]
    assert found["against/rewards/margins"] == pytest.approx(apart, abs=1e-6)
    assert found["against/rewards/margins_low"] > 0
    assert found["against/rewards/margins_p"] < 0.01
    assert found["against/rows"] == 16
    (line, _) = (run.folder / "evaluation" / "test" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert {"policy", "reference", "against"} <= set(json.loads(line))


def test_a_run_that_is_not_finished(copied: Any, toy: Toy) -> None:
    run = copied()
    shutil.rmtree(run.adapter)
    with pytest.raises(RunError, match="no adapter yet"):
        run.evaluate(toy.held_out)


def test_options_are_checked_first(toy_run: Any) -> None:
    with pytest.raises(SpecError, match=r"no option 'generat'.*Did you mean 'generate'"):
        toy_run.evaluate("nowhere.jsonl", generat=3)
    with pytest.raises(RunError, match="Set a temperature"):
        toy_run.evaluate("nowhere.jsonl", generate=3, draws=2)


@pytest.mark.parametrize(("name", "folder"), [("a/b", "a-b"), ("..", "data"), (".x", "x")])
def test_names_are_folders(name: str, folder: str) -> None:
    assert facts.safe(name) == folder
