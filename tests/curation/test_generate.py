"""Answers of a model at hand are its own, alone or among others; a server is asked once for each, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from _endpoint import Body, Fail, Reaction, Say, serving
from grainline import generation, models, rooms
from grainline.curate import curate
from grainline.curation import generate
from grainline.curation._seam import Bench, Dropped
from grainline.curation.generate import Generate
from grainline.data import load
from grainline.errors import RunError

if TYPE_CHECKING:
    from _toy import Toy
    from grainline.runs import Run


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


ROWS: list[dict[str, Any]] = [
    {"id": "chat", "prompt": ask("tell me of the sea"), "topic": "sea"},
    {"id": "text", "prompt": "the sky is"},
    {"id": "pair", "prompt": ask("the moon"), "chosen": "calm", "rejected": "harsh"},
    {"id": "long", "prompt": ask("tell me of the sea and the sky " * 5)},
]


def answered(step: Generate, rows: Sequence[Any], folder: Path = Path("unused"), seed: int = 0) -> list[Sequence[Any]]:
    with step.open(Bench(folder, seed)) as made:
        return list(made(rows))


def texts(made: Sequence[Sequence[Any]]) -> list[list[str]]:
    return [[answer["text"] for answer in row["answers"]] for (row,) in made]


def alone(toy: Toy, prompt: Any, count: int = 12, temperature: float = 0.0) -> str:
    """What the plain model says to one prompt."""
    loaded = models.load(toy.model)
    ids = loaded.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    ((said,),) = generation.generate(loaded.model, [ids], generation.Manner(count, temperature, top_p=1.0))
    return loaded.tokenizer.decode(said.ids, skip_special_tokens=True).strip()


def test_the_likeliest_answer_is_the_models_own(toy: Toy) -> None:
    made = answered(Generate(model=toy.model, each=1, temperature=0, max_new_tokens=12), ROWS)
    assert [row["id"] for (row,) in made] == ["chat", "text", "pair", "long"]
    assert texts([made[0], made[2]]) == [[alone(toy, ROWS[0]["prompt"])], [alone(toy, ROWS[2]["prompt"])]]
    row = made[0][0]
    assert row["topic"] == "sea"
    assert row["answers"][0].keys() == {"text", "model", "finish"}
    assert row["answers"][0]["model"] == toy.model
    (line,) = row["curation"]
    assert line["step"].startswith("generate:model=")
    assert (line["made"], line["missing"]) == (1, 0)


def test_answers_do_not_depend_on_company_or_on_an_interruption(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Generate(model=toy.model, each=3, temperature=1.0, max_new_tokens=10)
    whole = answered(step, ROWS)
    assert len({text for few in texts(whole) for text in few}) == 12
    assert [answered(step, [row])[0] for row in ROWS] == whole
    monkeypatch.setattr(generate, "ROWS", 3)
    assert answered(step, ROWS[::-1])[::-1] == whole


def test_a_finish_says_whether_there_was_more_to_say(toy: Toy) -> None:
    step = Generate(model=toy.model, each=8, temperature=1.5, max_new_tokens=40)
    with step.open(Bench(Path("unused"))) as made:
        rows = [row for few in made(ROWS) for row in few]
        facts = made.told(rows)
    tokenizer = models.load_tokenizer(toy.model)
    finishes = [(a["finish"], len(tokenizer(a["text"])["input_ids"])) for row in rows for a in row["answers"]]
    assert {finish for finish, _ in finishes} == {"stop", "length"}
    assert sum(finish == "length" for finish, _ in finishes) == facts["cut"]
    assert facts["made"] + facts["missing"] == 32
    assert facts["made"] == len(finishes)


def test_a_row_that_is_answered_by_silence_is_dropped(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    silence = [[generation.Said((), True)] * 2, [generation.Said((), True), generation.Said((70, 71), True)]]
    monkeypatch.setattr(generation, "generate", lambda *_, **__: silence)
    first, second = answered(Generate(model=toy.model, each=2), ROWS[:2])
    assert isinstance(first, Dropped)
    assert first.why == "no answer says anything"
    assert len(second[0]["answers"]) == 1
    assert second[0]["curation"][0]["missing"] == 1


def test_rows_of_one_prompt_are_answered_once(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    inner = generation.generate
    monkeypatch.setattr(generation, "generate", lambda m, p, *a, **k: [seen.append(len(p)), inner(m, p, *a, **k)][1])
    step = Generate(model=toy.model, each=2, max_new_tokens=6)
    one, two, again = texts(answered(step, [ROWS[0], ROWS[1], ROWS[0] | {"id": "again"}]))
    assert (one, seen) == (again, [2])
    assert one != two


def test_the_model_may_be_a_run(toy: Toy, toy_run: Run) -> None:
    step = Generate(model=str(toy_run.folder), each=1, temperature=0, max_new_tokens=12)
    sample = toy_run.samples()[0]
    (row,) = answered(step, [{"id": "s", "prompt": sample["prompt"]}])[0]
    assert row["answers"][0]["text"] == sample["policy"][: len(row["answers"][0]["text"])]
    assert row["answers"][0]["text"] != alone(toy, sample["prompt"])


# ------------------------------------------------------------------------------------------------------- options


@pytest.fixture
def plain(toy: Toy) -> dict[str, Any]:
    return {"model": toy.model, "each": 2, "temperature": 1.0, "max_new_tokens": 8}


def test_option_model(toy: Toy, toy_run: Run, plain: dict[str, Any]) -> None:
    tuned = answered(Generate(**plain | {"model": str(toy_run.adapter)}), ROWS)
    assert texts(tuned) != texts(answered(Generate(**plain), ROWS))


def test_option_each(plain: dict[str, Any]) -> None:
    two, five = (texts(answered(Generate(**plain | {"each": n}), ROWS)) for n in (2, 5))
    assert [few[:2] for few in five] == two
    with pytest.raises(ValueError, match="one answer several times"):
        Generate(each=2, temperature=0)


def test_option_temperature(plain: dict[str, Any]) -> None:
    cold = texts(answered(Generate(**plain | {"temperature": 1e-4}), ROWS))
    assert all(len(set(few)) == 1 for few in cold)


def test_option_top_p(plain: dict[str, Any]) -> None:
    narrow = texts(answered(Generate(**plain | {"top_p": 1e-6}), ROWS))
    assert all(len(set(few)) == 1 for few in narrow)


def test_option_max_new_tokens(plain: dict[str, Any]) -> None:
    more = texts(answered(Generate(**plain | {"max_new_tokens": 16}), ROWS))
    few = texts(answered(Generate(**plain), ROWS))
    assert more != few
    assert all(
        a.startswith(b.rstrip("�")[:-1]) for x, y in zip(more, few, strict=True) for a, b in zip(x, y, strict=True)
    )
    with pytest.raises(RunError, match="max_new_tokens: 511 new tokens leave no room"):
        answered(Generate(**plain | {"max_new_tokens": 511}), ROWS)


def test_option_own(plain: dict[str, Any]) -> None:
    row = ROWS[2] | {"answers": ["first"]}
    (made,) = answered(Generate(**plain, own=True), [row])[0]
    assert [(a["text"], a.get("model")) for a in made["answers"][:3]] == [
        ("first", None),
        ("calm", "data"),
        ("harsh", "data"),
    ]
    assert len(made["answers"]) == 5
    (made,) = answered(Generate(**plain), [row])[0]
    assert len(made["answers"]) == 3
    (made,) = answered(Generate(**plain, own=True), [ROWS[0]])[0]  # it has none
    assert len(made["answers"]) == 2


def test_option_positions(plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    inner = generation.generate
    monkeypatch.setattr(generation, "generate", lambda *a, **k: [seen.append(k["at_once"]), inner(*a, **k)][1])
    assert texts(answered(Generate(**plain, positions=40), ROWS)) == texts(answered(Generate(**plain), ROWS))
    assert seen == [40, 8192]


def chosen(step: Generate, monkeypatch: pytest.MonkeyPatch) -> models.Choice:
    """What is loaded for ``step``."""
    seen: list[Any] = []
    inner = models.load
    monkeypatch.setattr(models, "load", lambda choice, **k: [seen.append(choice), inner(choice, **k)][1])
    answered(step, ROWS[:1])
    return seen[0]


def test_option_dtype(plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(Generate(**plain, dtype="bfloat16"), monkeypatch)[2:4] == ("bfloat16", "auto")


def test_option_device(plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(Generate(**plain, device="cpu"), monkeypatch)[2:4] == ("auto", "cpu")


def test_a_prompt_in_the_answers_is_written_out(plain: dict[str, Any]) -> None:
    turns = [*ask("the moon"), {"role": "assistant", "content": "calm"}]
    (made,) = answered(Generate(**plain), [{"id": "m", "messages": turns}])[0]
    assert made["prompt"] == tuple(ask("the moon"))


# ------------------------------------------------------------------------------------------------------- a server


@pytest.fixture
def server() -> Iterator[Any]:
    def reply(body: Body) -> Reaction:
        return Say(
            f"{body['messages'][-1]['content'][:7]} {body['seed']}", finish="length" if body["seed"] % 2 else "stop"
        )

    with serving(otherwise=reply) as found:
        yield found


def remote(server: Any, **more: Any) -> Generate:
    return Generate(**{"model": "m", "each": 2, "base_url": server.url, "retries": 0} | more)


def test_option_base_url(server: Any, tmp_path: Path) -> None:
    """Each answer is one request; its own number is in the seed, and what was answered is not asked again."""
    made = answered(remote(server), ROWS[:2], tmp_path, seed=4)
    assert made[0][0]["answers"] == [
        {"text": "tell me 4", "model": "m", "finish": "stop"},
        {"text": "tell me 5", "model": "m", "finish": "length"},
    ]
    assert texts(made)[1] == ["the sky 4", "the sky 5"]
    assert (
        sorted(body["messages"][-1]["content"] for body in server.bodies)
        == ["tell me of the sea"] * 2 + ["the sky is"] * 2
    )
    assert answered(remote(server), ROWS[:2], tmp_path, seed=4) == made
    assert len(server.bodies) == 4
    answered(remote(server, temperature=0.3), ROWS[:1], tmp_path, seed=4)
    assert len(server.bodies) == 6
    assert remote(server).needs == {"endpoint"}
    assert Generate().needs == {"model"}


def test_a_server_is_told_how_to_draw(server: Any, tmp_path: Path) -> None:
    answered(remote(server, each=1, temperature=0.5, top_p=0.9, max_new_tokens=7), ROWS[:1], tmp_path, seed=3)
    (body,) = server.bodies
    wanted = {"model": "m", "temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "seed": 3, "messages": ROWS[0]["prompt"]}
    assert {key: body[key] for key in wanted} == wanted


def test_option_retries(tmp_path: Path) -> None:
    """What fails for good is left out and counted."""
    with serving(Fail(500), Fail(500), otherwise=lambda body: Say("yes")) as flaky:
        made = answered(remote(flaky, at_once=1, each=3), ROWS[:1], tmp_path)
        assert texts(made) == [["yes"]]
        assert made[0][0]["curation"][0]["missing"] == 2
    with serving(Fail(500), otherwise=lambda body: Say("yes")) as flaky:
        made = answered(remote(flaky, at_once=1, each=3, retries=2), ROWS[:1], tmp_path)
        assert texts(made) == [["yes"] * 3]
        assert made[0][0]["curation"][0] | {"step": ""} == {"step": "", "made": 3, "again": 2, "cut": 0, "missing": 0}


def test_option_at_once(server: Any, tmp_path: Path) -> None:
    answered(remote(server, at_once=1, each=6), ROWS[:1], tmp_path)
    assert server.busiest == 1


def test_option_api_key_env(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-0123456789")
    with serving(Fail(401, "no such key: {key}")) as strict, pytest.raises(Exception, match=r"MY_KEY") as caught:
        answered(remote(strict, api_key_env="MY_KEY"), ROWS[:1], tmp_path)
    assert "sk-0123456789" not in str(caught.value)


def test_option_timeout(tmp_path: Path) -> None:
    from _endpoint import Hang

    with serving(Hang(3.0), otherwise=lambda body: Say("yes")) as slow:
        made = answered(remote(slow, timeout=0.2, at_once=1), ROWS[:1], tmp_path)
    assert texts(made) == [["yes"]]


def test_from_prompts_to_pairs_whatever_stops_the_job(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """generate, segment, score and pair on the runner: rows that training reads, and the same bytes after a stop."""
    rows = [{"id": f"r{n}", "prompt": ask(f"tell me of the sea {n}")} for n in range(7)]
    steps = [f"generate:model={toy.model},each=3,max_new_tokens=12", "segment", "score:reward=(rules:target=3)", "pair"]
    monkeypatch.setattr(generate, "ROWS", 2)
    whole = curate(rows, steps, tmp_path / "whole.jsonl")
    made = load.read(str(whole.path))
    assert not made.problems
    assert all(record.answers[0].spans and record.margin > 0 for record in made.records)
    facts = [step.get("facts") for step in whole.facts["made"]]
    assert facts[0]["made"] + facts[0]["missing"] == 21
    assert 0 < facts[2]["coverage"] <= 1
    assert len(made.records) == whole.facts["made"][3]["made"] >= 3

    calls: list[int] = []
    inner = generation.generate

    def stopping(model: Any, prompts: Any, *rest: Any, **more: Any) -> Any:
        calls.append(len(prompts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inner(model, prompts, *rest, **more)

    monkeypatch.setattr(generation, "generate", stopping)
    with pytest.raises(KeyboardInterrupt):
        curate(rows, steps, tmp_path / "stopped.jsonl")
    again = curate(rows, steps, tmp_path / "stopped.jsonl")
    assert calls == [2, 2, 2, 2, 1]  # the third window was lost, and nothing else was made again
    assert again.path.read_bytes() == whole.path.read_bytes()
    assert again.facts == whole.facts


def test_written_as_text() -> None:
    step = rooms.parse("curation", 'generate:model=m,each=2,base_url="http://localhost:8000/v1"')
    assert step == Generate(model="m", each=2, base_url="http://localhost:8000/v1")
