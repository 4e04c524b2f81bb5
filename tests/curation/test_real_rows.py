"""Every step of the room on real rows, with a rule, a tiny model or a local server to judge and answer."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from _endpoint import Body, Reaction, Say, serving
from _toy import jsonl
from grainline import rooms
from grainline.curate import curate
from grainline.data import columns

if TYPE_CHECKING:
    from _toy import Toy

Rows = list[dict[str, Any]]
LENGTH = "reward=(rules:measure=length,target=60)"
TWO_DOCUMENTS = r"(?s)\\n\\n.+\\n\\n.+\\n\\nQuestion"
SIDES = ("chosen", "rejected")


class Case(NamedTuple):
    data: str
    steps: Sequence[str]  # {model}, {url} and {data} are filled in
    holds: Callable[[Rows, Rows], bool]  # of the rows that went in and those that came out
    limit: int | None = None


def tiled(_: Rows, out: Rows) -> bool:
    return all(
        "".join(row[side][a:b] for a, b in row[f"{side}_segments"]) == row[side] for row in out for side in SIDES
    )


def spans_are_scored(_: Rows, out: Rows) -> bool:
    scores = [s.score for row in out for answer in columns.record(row, where="r", id="r").answers for s in answer.spans]
    return len(scores) > 2 * len(out) and min(scores) >= 0 and max(scores) <= 1 and len(set(scores)) > 10


def best_is_longer(given: Rows, out: Rows) -> bool:
    placed = [
        [next(len(a["text"]) for a in row["answers"] if a.get("score") == place) for place in (1.0, 0.0)] for row in out
    ]
    return len(out) == len(given) and all(best > worst for best, worst in placed)


def edited(given: Rows, out: Rows) -> bool:
    return len(out) == len(given) and all(
        any(span["aspect"] == "edit" for side in SIDES for span in row[f"{side}_spans"]) for row in out
    )


def both_ways(_: Rows, out: Rows) -> bool:
    answers = defaultdict(list)
    for row in out:
        answers[row["id"].partition("#")[0]].append((row["chosen"], row["rejected"]))
    return all(first == second[::-1] for first, second in answers.values())


def requests_are_obeyed(_: Rows, out: Rows) -> bool:
    asked = [row for row in out if "<score: " in row["prompt"][-1]["content"]]
    return 0 < len(asked) < len(out) and all(row["margin"] > 0 for row in out)


def first_of_a_prompt(given: Rows, out: Rows) -> bool:
    first = {row["group"]: row for row in reversed(given)}
    return out == [row for row in given if first[row["group"]] is row]


def groups_are_parted(given: Rows, out: Rows) -> bool:
    parts = defaultdict(set)
    for row in out:
        parts[row["group"]].add(row["split"])
    return {len(found) for found in parts.values()} == {1} and len(out) == len(given)


def documents_moved(given: Rows, out: Rows) -> bool:
    before = {row["id"]: row["prompt"][-1]["content"] for row in given}
    copies = [(before[row["id"][:-2]], row["prompt"][-1]["content"]) for row in out if row["id"].endswith("#2")]
    return len(copies) == len(out) / 2 and all(
        old != new and Counter(old.split()) == Counter(new.split()) and question(old) == question(new)
        for old, new in copies
    )


def question(prompt: str) -> str:
    return prompt.rpartition("\n\nQuestion")[2]


def answered(given: Rows, out: Rows) -> bool:
    return [row["id"] for row in out] == [row["id"] for row in given] and all(len(r["answers"]) == 2 for r in out)


def shortened(given: Rows, out: Rows) -> bool:
    return len(out) == len(given) and all(
        (row["rejected"], row["chosen"]) == (old["rejected"], shorter(old["rejected"])) and 0 < row["edit_distance"] < 5
        for row, old in zip(out, given, strict=True)
    )


def shorter(answer: str) -> str:
    return answer.rpartition(" ")[0]


def balanced(given: Rows, out: Rows) -> bool:
    def even(row: dict[str, Any]) -> bool:
        lengths = [len(row[side].split()) for side in SIDES]
        return max(lengths) <= 2 * min(lengths)

    return out == [row for row in given if even(row)]


CASES = {
    "segment": Case("hh_harmless/test", ["segment"], tiled),
    "score": Case("pandalm/test", ["segment", f"score:{LENGTH}"], spans_are_scored),
    "rank": Case("answers", ["rank:reward=(rules:measure=length,target=500,better=longer)"], best_is_longer),
    "pair": Case(
        "answers",
        [f"score:{LENGTH}", "pair:of=all"],
        lambda given, out: len(out) > len(given) and all(r["chosen_score"] > r["rejected_score"] for r in out),
    ),
    "revise": Case("qa_feedback/spans_test", ["revise:model=m,base_url={url},retries=0"], shortened, 12),
    "edits": Case("qa_feedback/spans_test", ["edits"], edited),
    "relabel": Case("pandalm/test", [f"score:{LENGTH}", "relabel"], both_ways),
    "control": Case("pandalm/test", [f"score:{LENGTH}", "control:aspects=[score]"], requests_are_obeyed),
    "select": Case(
        "pandalm/test",
        ["select:budget=20,threshold=1,complexity=null,quality=(rules:measure=length,target=60),model={model}"],
        lambda given, out: len(out) == 20 and {r["id"] for r in out} < {r["id"] for r in given},
        50,
    ),
    "generate": Case("pandalm/test", ["generate:model={model},each=2,max_new_tokens=8"], answered, 12),
    "filter": Case("pandalm/test", ["filter:balance=2,unit=words"], balanced),
    "dedupe": Case("qa_feedback/prefs_test", ["dedupe:by=prompt,threshold=1"], first_of_a_prompt),
    "decontaminate": Case(
        "qa_feedback/prefs_test",
        ["decontaminate:against={data}/qa_feedback/spans_test.jsonl.gz"],
        lambda given, out: 0 < len(out) < len(given),
    ),
    "mix": Case(
        "pandalm/test",
        ['mix:sources={{"{data}/persona/test.jsonl.gz": 0.5}}'],
        lambda given, out: Counter(r["id"].partition("-")[0] for r in out) == {"pandalm": 150, "persona": 200},
    ),
    "split": Case("qa_feedback/prefs_test", ["split:test=0.2"], groups_are_parted),
    "convert": Case(
        "hh_harmless/test",
        ["convert:kind=labelled"],
        lambda given, out: Counter(r["label"] for r in out) == {True: len(given), False: len(given)},
    ),
    "permute": Case(
        "qa_feedback/spans_test",
        [f'filter:within=prompt,having="{TWO_DOCUMENTS}"', 'permute:mark="\\n\\n",end="\\n\\nQuestion",copies=2'],
        documents_moved,
    ),
}


def test_no_step_is_forgotten() -> None:
    assert set(CASES) == set(rooms.names("curation"))


@pytest.mark.real
@pytest.mark.parametrize("name", CASES)
def test_a_step_on_real_rows(
    name: str, shared_data: Path, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it promises holds, and made again elsewhere, with nothing remembered, it is the same bytes."""
    case = CASES[name]
    given = read(shared_data, case.data)[: case.limit]
    source = jsonl(tmp_path / "given.jsonl", given)
    digests = set()
    with serving(otherwise=mend) as server:
        steps = [step.format(model=toy.model, url=server.url, data=shared_data) for step in case.steps]
        for turn in ("one", "other"):
            monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / turn))
            done = curate(source, steps, tmp_path / f"{turn}.jsonl")
            digests.add(done.facts["out"]["sha256"])
    out = [json.loads(line) for line in done.path.read_text(encoding="utf-8").splitlines()]
    assert len(digests) == 1
    assert len({row["id"] for row in out}) == len(out) == done.facts["out"]["rows"]
    assert case.holds(given, out)
    last = done.facts["made"][-1]
    print(f"{name}: {last['rows']} rows in, {last['made']} out, dropped: {last['dropped']}")


def read(folder: Path, data: str) -> Rows:
    """The rows of a file; ``answers`` are questions with all the different answers of their pairs."""
    file = "qa_feedback/prefs_test" if data == "answers" else data
    with gzip.open(folder / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if data != "answers":
        return rows
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = found.setdefault(row["group"], {"id": row["group"], "prompt": row["prompt"], "answers": []})
        one["answers"] += [row[side] for side in SIDES if row[side] not in one["answers"]]
    # Of different lengths, so that a rule by length has one best and one worst.
    return [r for r in found.values() if len({len(a.split()) for a in r["answers"]}) == len(r["answers"]) > 1]


def mend(body: Body) -> Reaction:
    """An editor who leaves out the last word."""
    (answer,) = re.findall(r"<answer-\w+>\n(.*)\n</answer-", body["messages"][-1]["content"], re.DOTALL)
    return Say(f"Reasoning: shorter.\nRevised answer: {shorter(answer)}")
