"""The endpoint against a server that misbehaves: what is asked again, what is not, what is paid and what is written."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from _endpoint import KEY, Body, Fail, Hang, Raw, Reaction, Say, Server, serving
from grainline import endpoint as module
from grainline.endpoint import Access, Endpoint, Unanswered, _complaint, _retry_after
from grainline.errors import ModelError, SpecError, TrainingError
from grainline.ledger import Ledger

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def reach(server: Server, folder: Path, options: dict[str, Any] | None = None, **access: Any) -> Endpoint:
    quick = Access(base_url=server.url, wait=0.002, timeout=5.0)._replace(**access)
    return Endpoint("m", quick, Ledger(folder / "kept.jsonl"), options)


def question(n: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": str(n)}]


def echo(body: Body) -> Reaction:
    return Say(body["messages"][-1]["content"])


HALF = Raw(b'{"choices": [{"message": {"content": "ha', promised=100)
PASSES = [
    Fail(408),
    Fail(409),
    Fail(429),
    Fail(500),
    Fail(503),
    HALF,
    Raw(b"<html>busy</html>"),
    Raw(b'{"choices": []}'),
]


@pytest.mark.parametrize("fault", PASSES, ids=lambda fault: f"{type(fault).__name__}-{fault[0]!s:.12}")
def test_what_passes_is_asked_again(fault: Reaction, tmp_path: Path) -> None:
    with serving(fault, fault, Say("well")) as server, reach(server, tmp_path) as line:
        assert line.ask(HELLO).text == "well"
        assert (line.tally.requests, line.tally.retries) == (1, 2)


def test_a_timeout_is_asked_again(tmp_path: Path) -> None:
    with serving(Hang(0.3), Say("well")) as server, reach(server, tmp_path, timeout=0.1) as line:
        assert line.ask(HELLO).text == "well"
        assert line.tally.retries == 1


def test_a_server_that_is_not_there_is_no_reply(tmp_path: Path) -> None:
    with serving() as server:
        pass
    with reach(server, tmp_path, retries=2) as line, pytest.raises(Unanswered, match=r"Connection"):
        line.ask(HELLO)
    assert (line.tally.retries, line.tally.unanswered) == (2, 1)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_request_is_to_blame_for_is_not_asked_again(status: int, tmp_path: Path) -> None:
    with serving(Fail(status, "too long"), otherwise=echo) as server, reach(server, tmp_path) as line:
        with pytest.raises(Unanswered, match=f"{status}: .*too long"):
            line.ask(HELLO)
        assert line.ask(question(1)).text == "1"  # others fare better
        assert len(server.bodies) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_would_befall_all_ends_the_job(status: int, tmp_path: Path) -> None:
    with serving(Fail(status, "who? {key}")) as server, reach(server, tmp_path) as line:
        with pytest.raises(ModelError, match=f"m at {server.url}: {status}: .*who") as error:
            line.ask(HELLO)
        assert KEY not in str(error.value)
        assert len(server.bodies) == 1


def test_a_long_silence_ends_the_job_and_keeps_what_was_answered(tmp_path: Path) -> None:
    def dying(body: Body) -> Reaction:
        return echo(body) if int(body["messages"][0]["content"]) < 4 else Fail(500)

    read: list[str] = []
    with serving(otherwise=dying) as server:
        with reach(server, tmp_path, retries=1, at_once=2) as line, pytest.raises(TrainingError, match="in a row"):
            read.extend(line.in_order(lambda n: quietly(line, n), range(100)))
        assert line.tally.unanswered < module.SILENCE + 4
        assert read == list("0123"[: len(read)])  # nothing of the silence is handed on
        with reach(server, tmp_path) as again:
            assert [again.ask(question(n)).text for n in range(4)] == list("0123")
            assert (again.tally.kept, again.tally.requests) == (4, 0)


def test_what_waits_when_a_job_ends_is_no_unanswered_request(tmp_path: Path) -> None:
    """It would be written as judged by nobody, and the next job would never ask again."""
    asked = threading.Event()

    def busy_then_closed(body: Body) -> Reaction:
        if body["messages"][0]["content"] == "0":
            asked.set()
            return Fail(503, headers=(("Retry-After", "60"),))
        assert asked.wait(5)
        return Fail(401)

    read: list[str] = []
    with serving(otherwise=busy_then_closed) as server, reach(server, tmp_path, at_once=2) as line:
        with pytest.raises(ModelError, match="401"):
            read.extend(line.in_order(lambda n: quietly(line, n), range(9)))
        assert (read, line.tally.unanswered) == ([], 0)


def test_requests_that_have_no_answer_among_others_are_handed_on(tmp_path: Path) -> None:
    def every_third(body: Body) -> Reaction:
        return Fail(422) if int(body["messages"][0]["content"]) % 3 == 0 else echo(body)

    with serving(otherwise=every_third) as server, reach(server, tmp_path, at_once=2) as line:
        read = list(line.in_order(lambda n: quietly(line, n), range(20)))
    assert read == ["?" if n % 3 == 0 else str(n) for n in range(20)]


def quietly(line: Endpoint, n: int) -> str:
    try:
        return line.ask(question(n)).text
    except Unanswered:
        return "?"


def test_pauses_double_up_to_a_draw_and_retry_after_is_the_least(tmp_path: Path) -> None:
    script = [Fail(500)] * 3 + [Fail(429, headers=(("Retry-After", "0.3"),)), Say("well")]
    with serving(*script) as server, reach(server, tmp_path, wait=0.02) as line:
        line.ask(HELLO)
    pauses = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert all(pause >= 0.5 * 0.02 * 2**n for n, pause in enumerate(pauses))
    assert pauses[3] >= 0.3


def test_after_a_429_the_others_wait_too(tmp_path: Path) -> None:
    with (
        serving(Fail(429, headers=(("Retry-After", "0.2"),)), otherwise=echo) as server,
        reach(server, tmp_path) as line,
    ):
        line.ask(question(0))
        line._not_before = time.monotonic() + 0.1  # as another thread would find it
        began = time.monotonic()
        line.ask(question(1))
        assert time.monotonic() - began >= 0.1
        assert server.times[1] - server.times[0] >= 0.2


def test_a_wait_beyond_all_patience_is_no_reply(tmp_path: Path) -> None:
    with serving(Fail(503, headers=(("Retry-After", "3600"),))) as server, reach(server, tmp_path) as line:
        with pytest.raises(Unanswered, match="503"):
            line.ask(HELLO)
        assert len(server.bodies) == 1


def test_retry_after_is_a_number_or_a_date() -> None:
    assert _retry_after({"retry-after": "2.5"}) == 2.5
    assert 8 < _retry_after({"retry-after": formatdate(time.time() + 10, usegmt=True)}) <= 10
    assert [_retry_after({"retry-after": said}) for said in ("", "soon", "-3", "nan")] == [0, 0, 0, 0]


def test_an_errors_own_words_are_found() -> None:
    assert _complaint('{"error": {"message": "too long", "type": "x"}}') == "too long"
    assert _complaint('{"detail": "pinned"}') == "pinned"
    assert [_complaint(body) for body in ("<h1>busy</h1>", '["x"]', '{"error": "no"}', '{"a": 1}')] == [
        "<h1>busy</h1>",
        '["x"]',
        '{"error": "no"}',
        '{"a": 1}',
    ]


def test_answers_come_in_order_at_most_so_many_at_once(tmp_path: Path) -> None:
    def slow(body: Body) -> Reaction:
        time.sleep(0.02 if int(body["messages"][0]["content"]) % 3 == 0 else 0.001)
        return echo(body)

    with serving() as server, reach(server, tmp_path, at_once=3) as line:
        busy = []

        def counted(body: Body) -> Reaction:
            busy.append(1)
            highest.append(len(busy))
            try:
                return slow(body)
            finally:
                busy.pop()

        highest: list[int] = []
        server.otherwise = counted
        read = []
        items = (read.append(n) or n for n in range(30))
        answers = line.in_order(lambda n: line.ask(question(n)).text, items)
        assert next(answers) == "0"
        assert len(read) <= 7  # it reads ahead, but not far
        assert list(answers) == [str(n) for n in range(1, 30)]
        assert 1 < max(highest) <= 3


def test_an_interrupt_waits_for_no_pause(tmp_path: Path) -> None:
    with serving(otherwise=lambda _: Fail(500)) as server, reach(server, tmp_path, wait=60.0, at_once=2) as line:

        def items() -> Iterator[int]:
            yield from (0, 1)
            while line.tally.retries < 2:
                time.sleep(0.01)
            raise KeyboardInterrupt

        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(line.in_order(lambda n: quietly(line, n), items()))
        assert time.monotonic() - began < 25  # the pauses are of 30 seconds and more


def test_the_same_question_is_asked_once_even_at_the_same_time(tmp_path: Path) -> None:
    def slow(body: Body) -> Reaction:
        time.sleep(0.05)
        return echo(body)

    with serving(otherwise=slow) as server, reach(server, tmp_path) as line:
        assert list(line.in_order(lambda _: line.ask(HELLO).text, range(6))) == ["hello"] * 6
        assert len(server.bodies) == 1
        assert (line.tally.requests, line.tally.kept) == (1, 5)


def test_whatever_decides_a_reply_is_part_of_its_key(tmp_path: Path) -> None:
    with serving(otherwise=echo) as server, serving(otherwise=echo) as other:
        plain = {"temperature": 0.5, "seed": 3}
        cases: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
            (plain, {}, {}),
            (plain | {"temperature": 0.6}, {}, {}),
            (plain | {"seed": 4}, {}, {}),
            (plain | {"top_p": 0.9}, {}, {}),
            (plain, {"base_url": other.url}, {}),
            (plain, {}, {"about": "rubric@2"}),
            (plain, {}, {"draw": 2}),
            ({"seed": None}, {}, {}),
            ({"seed": None}, {}, {"draw": 1}),  # nothing in the body tells the draws apart
        ]
        for asked, (options, access, further) in enumerate(cases, 1):
            for _ in range(2):
                with reach(server, tmp_path, options, **access) as line:
                    line.ask(HELLO, **further)
            assert len(server.bodies) + len(other.bodies) == asked
        assert server.bodies[0] == {"model": "m", "messages": HELLO, "temperature": 0.5, "seed": 3}
        assert server.bodies[5]["seed"] == 5
        assert "seed" not in server.bodies[-1]


def test_tokens_and_money_are_counted(tmp_path: Path) -> None:
    script = [Say("a", (1000, 200)), Say("b", None), Say("c", (500, 100), "length")]
    with serving(*script) as server, reach(server, tmp_path, price_in=2.0, price_out=10.0) as line:
        replies = [line.ask(question(n)) for n in (0, 1, 2, 2)]
        assert [reply.cut for reply in replies] == [False, False, True, True]
        tally = line.tally
        assert (tally.prompt_tokens, tally.completion_tokens, tally.uncounted, tally.kept) == (1500, 300, 1, 1)
        assert tally.cost == pytest.approx((1500 * 2 + 300 * 10) / 1e6)
        assert str(tally) == (
            "3 requests, 1 answered from the cache, 1,500 + 300 tokens, 1 replies without a token count, 0.0060 USD"
        )


def test_the_job_stops_at_its_budget(tmp_path: Path) -> None:
    prices = {"price_in": 1e4, "price_out": 0.0, "budget": 1.5, "at_once": 1}  # 100 tokens: one dollar
    with serving(otherwise=echo) as server:
        with reach(server, tmp_path, **prices) as line, pytest.raises(TrainingError, match=r"budget of 1\.5 USD"):
            [line.ask(question(n)) for n in range(5)]
        assert len(server.bodies) == 2


def test_the_key_is_sent_and_never_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Even by a server that gives it back in its replies and errors."""
    seen = []
    script = [Fail(500, "{key}"), Say(f"your key is {KEY}"), Fail(400, "{key}")]
    with serving(*script) as server, reach(server, tmp_path) as line:
        for _ in range(2):
            seen.append(line.ask(HELLO).text)
        with pytest.raises(Unanswered) as error:
            line.ask(question(1))
        seen += [str(error.value), repr(line.tally), repr(line.access), str(vars(error.value))]
    assert seen[0] == seen[1] == "your key is [key]"
    files = [file.read_text(encoding="utf-8") for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 1
    assert not [text for text in (*seen, *files, *capfd.readouterr()) if KEY in text]


def test_another_variable_may_hold_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "another-key-altogether")
    with (
        serving(Fail(401, "not {key}")) as server,
        reach(server, tmp_path, api_key_env="MINE") as line,
        pytest.raises(ModelError, match=r"not \[key\].*\$MINE"),
    ):
        line.ask(HELLO)


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def at(**access: Any) -> Endpoint:
        return Endpoint("m", Access(**access), Ledger(tmp_path / "kept"))

    with pytest.raises(SpecError, match="no model is named"):
        Endpoint("", Access(), Ledger(tmp_path / "kept"))
    with pytest.raises(SpecError, match="password") as error:
        at(base_url="https://me:secret@host/v1")
    assert "secret" not in str(error.value)
    with pytest.raises(SpecError, match="no address"):
        at(base_url="localhost:8000/v1")
    assert at().url == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://there/v1/")
    assert at().url == "http://there/v1"
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    assert at(base_url="http://localhost:1/v1").url == "http://localhost:1/v1"  # a server of one's own needs no key
    with pytest.raises(ModelError, match=r"\$OPENAI_API_KEY is not set"):
        at()


def test_without_its_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(SpecError, match=r"grainline\[judge\]"):
        Endpoint("m", Access(), Ledger(tmp_path / "kept"))


def test_a_kept_reply_says_who_gave_it(tmp_path: Path) -> None:
    with serving(Say("well", (7, 3))) as server, reach(server, tmp_path) as line:
        line.ask(HELLO)
    kept = json.loads((tmp_path / "kept.jsonl").read_text(encoding="utf-8"))
    del kept["key"]
    assert kept == {"model": "m", "text": "well", "prompt_tokens": 7, "completion_tokens": 3, "cut": False}
