"""revise: pairs of an answer and its revision, by a server, a model at hand, or people."""

from __future__ import annotations

import gzip
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from _endpoint import KEY, Body, Fail, Hang, Reaction, Say, serving
from grainline import generation, models
from grainline.curation._seam import Bench
from grainline.curation.revise import Revise
from grainline.data import columns
from grainline.errors import DataError, RunError, SpecError

if TYPE_CHECKING:
    from _toy import Toy

PAIR = {
    "id": "a",
    "prompt": [{"role": "user", "content": "What is 2+2?"}],
    "chosen": "Four.",
    "rejected": "It is 5, I think.",
    "rejected_score": 0.2,
    "rejected_spans": [{"start": 6, "end": 7}],
    "topic": "sums",
}
SEVERAL = {
    "id": "s",
    "prompt": "What is 2+2?",
    "answers": [{"text": "It is 4.", "score": 0.9}, {"text": "It is 5.", "score": 0.1}, "It is 6."],
}


def revised(rows: list[dict[str, Any]], step: Revise, folder: Path = Path("unused"), seed: int = 0) -> list[Any]:
    with step.open(Bench(folder, seed)) as made:
        return list(made(rows))


def mend(body: Body) -> Reaction:
    """Every 5 and 6 becomes a 4."""
    asked = body["messages"][-1]["content"]
    tag = asked.split("\n")[0][-12:]
    answer = asked.split(f"<answer-{tag}>\n")[1].split(f"\n</answer-{tag}>")[0]
    return Say(f"Reasoning: 2+2 is 4.\nRevised answer: {answer.replace('5', '4').replace('6', '4')}")


@pytest.fixture
def server() -> Iterator[Any]:
    with serving(otherwise=mend) as found:
        yield found


def remote(server: Any, **more: Any) -> Revise:
    return Revise(**{"model": "m", "base_url": server.url, "retries": 0} | more)


def test_the_revision_is_chosen(server: Any, tmp_path: Path) -> None:
    ((made,),) = revised([PAIR], remote(server), tmp_path)
    assert (made["chosen"], made["rejected"]) == ("It is 4, I think.", "It is 5, I think.")
    assert (made["rejected_score"], made["rejected_spans"]) == (0.2, PAIR["rejected_spans"])  # they tell of that text
    assert (made["edit_distance"], made["edit_share"]) == (1, round(1 / 7, 4))
    assert (made["chosen_model"], made["revision_reason"], made["topic"]) == ("m", "2+2 is 4.", "sums")
    (line,) = made["curation"]
    assert (line["version"], line["left_out"]) == (1, 0)
    assert len(columns.record(made, where="a", id="a").answers[1].spans) == 1


def test_a_server_is_paid_once(server: Any, tmp_path: Path) -> None:
    made = revised([PAIR, PAIR | {"id": "b", "rejected": "It is 5!"}], remote(server), tmp_path)
    assert revised([PAIR, PAIR | {"id": "b", "rejected": "It is 5!"}], remote(server), tmp_path) == made
    assert len(server.bodies) == 2
    assert (server.bodies[0]["temperature"], server.bodies[0]["max_tokens"]) == (0.7, 1024)


def test_replies_that_make_no_pair(tmp_path: Path) -> None:
    script: list[Reaction] = [
        Say("It is 4."),
        Say("Reasoning: x\nRevised answer: It is", finish="length"),
        Fail(400),
        Say("Revised answer: It is 5, I think."),
    ]
    rows = [PAIR | {"id": str(n), "prompt": f"{n}?"} for n in range(4)]
    with serving(*script, otherwise=mend) as server:
        made = revised(rows, remote(server, at_once=1), tmp_path)
    assert [found.why for found in made] == [
        "the reply is not in the form asked for",
        "the reply was cut off",
        "no reply",
        "the revision changes nothing",
    ]
    turns = [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}] * 2
    with serving(otherwise=mend) as server:
        talk, after = revised([PAIR | {"rejected": turns[:3], "rejected_spans": None}, PAIR], remote(server), tmp_path)
    assert talk.why == "an answer of several turns"
    assert len(after) == 1


def test_other_rows(server: Any, tmp_path: Path) -> None:
    one = {"id": "c", "prompt": "2+2?", "completion": "It is 5.", "label": False, "completion_score": 0.1}
    ((made,),) = revised([one], remote(server), tmp_path)
    assert (made["chosen"], made["rejected"], made["rejected_score"]) == ("It is 4.", "It is 5.", 0.1)
    assert not {"completion", "completion_score", "label"} & set(made)
    implied = {"id": "i", "chosen": "Human: 2+2? Bot: 4", "rejected": "Human: 2+2? Bot: 5"}
    ((made,),) = revised([implied], remote(server), tmp_path)
    assert (made["prompt"], made["chosen"]) == ("Human: 2+2? Bot:", "4")


def test_told(server: Any, tmp_path: Path) -> None:
    step = remote(server)
    with step.open(Bench(tmp_path)) as made:
        rows = [
            row for found in made([PAIR, PAIR | {"id": "b", "rejected": "5", "rejected_spans": None}]) for row in found
        ]
        facts = made.told(rows)
    assert (facts["revised"], facts["changed"]) == (2, statistics.median([round(1 / 7, 4), 1.0]))
    assert facts["tenths"] == [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]


# --------------------------------------------------------------------------------------------------- a model at hand


SHORT = "version: 1\nmakes: better\nreason: why\nrevision: new\ntask: mend it\n"


def test_a_model_at_hand(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says is read; what does not fit its window of 512 tokens is not asked; what it babbles makes no pair."""
    mine = tmp_path / "short.yaml"
    mine.write_text(SHORT)
    monkeypatch.setattr("grainline.rewards._rubric.DATA", "")
    row = {"id": "r", "prompt": "?", "chosen": "calm", "rejected": "the sea is harsh"}
    step = Revise(model=toy.model, template=str(mine), max_new_tokens=30, temperature=0)
    long = row | {"id": "l", "rejected": "the sea is harsh " * 60}
    babbled, unasked = revised([row, long], step)
    assert babbled.why in ("the reply was cut off", "the reply is not in the form asked for")
    assert unasked.why == "conversation and answer do not fit the model's window"
    tokenizer = models.load_tokenizer(toy.model)
    ids = tuple(tokenizer("why: it\nnew: the sea is calm", add_special_tokens=False)["input_ids"])
    asked: list[Any] = []
    reply = [[generation.Said(ids, True)]]
    monkeypatch.setattr(generation, "generate", lambda model, prompts, *_, **__: [asked.extend(prompts), reply][1])
    ((made,), _) = revised([row, long], step)
    assert (made["chosen"], made["rejected"], made["edit_distance"]) == ("the sea is calm", "the sea is harsh", 1)
    said = tokenizer.decode(asked[0])
    assert "mend it" in said
    assert "the sea is harsh" in said
    assert len(asked) == 1


# ------------------------------------------------------------------------------------------------------------ people


def test_option_by() -> None:
    ((made,),) = revised([PAIR | {"chosen": "It is 4, I think.", "chosen_score": 1.0}], Revise(by="data"))
    assert (made["chosen"], made["rejected"], made["edit_distance"]) == ("It is 4, I think.", PAIR["rejected"], 1)
    assert (made["chosen_score"], made["rejected_spans"]) == (1.0, PAIR["rejected_spans"])
    assert Revise(by="data").needs == {"pairs"}
    assert (Revise().needs, Revise(base_url="http://x/v1").needs) == ({"model"}, {"endpoint"})
    with pytest.raises(DataError, match="s: no correction stands in the row"):
        revised([SEVERAL], Revise(by="data"))


@pytest.mark.real
def test_human_corrections(shared_data: Path) -> None:
    with gzip.open(shared_data / "qa_feedback" / "spans_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    made = revised(rows, Revise(by="data", most=0.5))
    kept = [found[0] for found in made if found]
    assert 0 < len(kept) < len(rows)
    assert {found.why for found in made if not found} == {"the revision changes too much"}
    assert max(row["edit_share"] for row in kept) <= 0.5
    assert [row["chosen"] for row in kept] == [r["chosen"] for r, found in zip(rows, made, strict=True) if found]


# ----------------------------------------------------------------------------------------------------------- options


def test_option_template(server: Any, tmp_path: Path) -> None:
    """With worse the original is chosen; a template of one's own is asked in its words, and is a file of the job."""
    with serving(otherwise=lambda body: Say("Worsened answer: It is 7, I think.")) as other:
        ((made,),) = revised([PAIR], remote(other, template="worse"), tmp_path)
    assert (made["chosen"], made["rejected"]) == ("It is 5, I think.", "It is 7, I think.")
    assert (made["chosen_score"], made["rejected_model"]) == (0.2, "m")
    mine = tmp_path / "mine.yaml"
    mine.write_text("version: 3\nmakes: better\nreason: Reasoning\nrevision: Revised answer\ntask: Mend it.\n")
    ((made,),) = revised([PAIR], remote(server, template=str(mine)), tmp_path)
    assert made["curation"][0]["version"] == 3
    assert server.bodies[-1]["messages"][0]["content"].startswith("Mend it.")
    assert remote(server, template=str(mine)).reads == (str(mine),)
    assert remote(server).reads == ()
    with pytest.raises(SpecError, match="no template 'none'"):
        revised([PAIR], remote(server, template="none"), tmp_path)


def test_option_of(server: Any, tmp_path: Path) -> None:
    ((made,),) = revised([SEVERAL], remote(server), tmp_path)
    assert (made["rejected"], made["rejected_score"]) == ("It is 5.", 0.1)
    assert "answers" not in made
    (both,) = revised([SEVERAL], remote(server, of="all"), tmp_path)
    assert [(row["rejected"], row["chosen"]) for row in both] == [("It is 5.", "It is 4."), ("It is 6.", "It is 4.")]
    assert {row["curation"][-1]["left_out"] for row in both} == {1}  # of "It is 4." nothing was changed
    unscored = {"id": "u", "prompt": "?", "answers": ["It is 6.", "It is 5."]}
    assert revised([unscored], remote(server), tmp_path)[0][0]["rejected"] == "It is 6."


def test_option_most(server: Any, tmp_path: Path) -> None:
    assert revised([PAIR], remote(server, most=0.15), tmp_path)[0]
    (dropped,) = revised([PAIR], remote(server, most=0.14), tmp_path)
    assert dropped.why == "the revision changes too much"


def test_option_unit(server: Any, tmp_path: Path) -> None:
    row = PAIR | {"rejected": "二加二是5吧", "rejected_spans": None}
    words, characters = (revised([row], remote(server, unit=unit), tmp_path)[0][0] for unit in ("words", "characters"))
    assert (words["edit_share"], characters["edit_share"]) == (1.0, round(1 / 6, 4))


def test_option_model(server: Any, tmp_path: Path) -> None:
    revised([PAIR], remote(server, model="other"), tmp_path)
    assert server.bodies[0]["model"] == "other"


def test_option_base_url(server: Any, tmp_path: Path) -> None:
    revised([PAIR], remote(server), tmp_path)
    assert len(server.bodies) == 1


def test_option_temperature(server: Any, tmp_path: Path) -> None:
    revised([PAIR], remote(server, temperature=0.1), tmp_path)
    assert server.bodies[0]["temperature"] == 0.1


def test_option_max_new_tokens(toy: Toy, server: Any, tmp_path: Path) -> None:
    revised([PAIR], remote(server, max_new_tokens=99), tmp_path)
    assert server.bodies[0]["max_tokens"] == 99
    with pytest.raises(RunError, match="leave no room"):
        revised([PAIR], Revise(model=toy.model, max_new_tokens=511), tmp_path)


@pytest.fixture
def at_hand(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, int]]:
    """How the model is loaded, and how many positions it holds."""

    def asked(**options: Any) -> tuple[Any, int]:
        seen: list[Any] = []
        load, generate = models.load, generation.generate
        monkeypatch.setattr(models, "load", lambda choice, **k: [seen.append(choice), load(choice, **k)][1])
        monkeypatch.setattr(generation, "generate", lambda *a, **k: [seen.append(k["at_once"]), generate(*a, **k)][1])
        revised([PAIR], Revise(model=toy.model, max_new_tokens=4, **options))
        return seen[0], seen[1]

    return asked


def test_option_positions(at_hand: Callable[..., tuple[Any, int]]) -> None:
    assert at_hand(positions=700)[1] == 700


def test_option_dtype(at_hand: Callable[..., tuple[Any, int]]) -> None:
    assert at_hand(dtype="bfloat16")[0].dtype == "bfloat16"


def test_option_device(at_hand: Callable[..., tuple[Any, int]]) -> None:
    assert at_hand(device="cpu")[0].device == "cpu"


def test_option_retries(tmp_path: Path) -> None:
    with serving(Fail(500), otherwise=mend) as flaky:
        assert revised([PAIR], remote(flaky), tmp_path / "0")[0].why == "no reply"
    with serving(Fail(500), otherwise=mend) as flaky:
        assert len(revised([PAIR], remote(flaky, retries=1), tmp_path / "1")[0]) == 1


def test_option_at_once(server: Any, tmp_path: Path) -> None:
    revised([PAIR | {"id": str(n), "prompt": str(n)} for n in range(6)], remote(server, at_once=1), tmp_path)
    assert server.busiest == 1


def test_option_api_key_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serving(Fail(401, "no such key: {key}")) as strict, pytest.raises(Exception, match="MY_KEY") as caught:
        revised([PAIR], remote(strict, api_key_env="MY_KEY"), tmp_path)
    assert KEY not in str(caught.value)


def test_option_timeout(tmp_path: Path) -> None:
    with serving(Hang(3.0), otherwise=mend) as slow:
        assert revised([PAIR], remote(slow, timeout=0.2), tmp_path)[0].why == "no reply"
