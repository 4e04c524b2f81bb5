"""``grainline chat``: the same words as the run's own samples; turns from a pipe; a terminal's two columns."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from grainline import cli, conversation, generation
from grainline.cli import chat

if TYPE_CHECKING:
    from _toy import Toy
    from grainline.runs import Run


def call(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["chat", *map(str, arguments)])
    return int(caught.value.code or 0)


class Stdin(io.StringIO):
    """Standard input that is a terminal, or a pipe."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


def typed(monkeypatch: pytest.MonkeyPatch, *lines: Any) -> None:
    """A user at a terminal; a KeyboardInterrupt among the lines is Ctrl-C."""
    rest = iter(lines)

    def answer(prompt: str) -> str:
        line = next(rest, EOFError())
        if isinstance(line, BaseException):
            raise line
        return str(line)

    stdin = Stdin()
    stdin.terminal = True
    monkeypatch.setattr("sys.stdin", stdin)
    monkeypatch.setattr("builtins.input", answer)


def test_a_prompt_is_answered_as_in_the_runs_samples(
    toy: Toy, toy_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for sample in toy_run.samples():
        (turn,) = sample["prompt"]
        assert call(toy_run.folder, "--prompt", turn["content"], "--max-new-tokens", 96, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found == {"prompt": turn["content"], "reference": sample["reference"], "policy": sample["policy"]}


def test_plain_text(toy: Toy, toy_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sample = toy_run.samples()[0]
    asked = ["--prompt", sample["prompt"][0]["content"], "--max-new-tokens", 96]
    assert call(toy_run.folder, *asked) == 0
    assert capsys.readouterr().out == f"reference: {sample['reference']}\npolicy: {sample['policy']}\n"
    assert call(toy_run.folder, *asked, "--policy-only") == 0
    assert capsys.readouterr().out == f"{sample['policy']}\n"


# ------------------------------------------------------------------------------------------------------------ turns


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Instead of a model: each voice says its name and the length of its conversation; what it was asked is kept."""
    heard: list[list[str]] = []

    def load(recipe: Any, adapter: Path, *, policy_only: bool) -> conversation.Speakers:
        voices = tuple(conversation.Voice(name, None, None) for name in ("reference", "policy"))
        return conversation.Speakers(voices, type("T", (), {"chat_template": "x"}), "")

    def asked(tokenizer: Any, turns: Any, **_: Any) -> conversation.Asked:
        heard.append([turn["content"] for turn in turns])
        return conversation.Asked((len(turns),), (), False)

    def speak(voice: Any, tokenizer: Any, question: conversation.Asked, manner: Any) -> Generator[str, None, None]:
        yield voice.name
        if heard[-1][-1] == "stop me":
            raise KeyboardInterrupt
        yield f"{voice.name} {question.ids[0]}"

    monkeypatch.setattr(conversation, "load", load)
    monkeypatch.setattr(conversation, "asked", asked)
    monkeypatch.setattr(generation, "window", lambda model: 99)
    monkeypatch.setattr(conversation, "speak", speak)
    return heard


def test_each_voice_goes_on_with_its_own_answers(
    toy_run: Run, echo: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Stdin("a\n\nb\n/reset\nc\n/quit\nnever\n"))
    assert call(toy_run.folder) == 0
    assert echo == [
        ["a"], ["a"],
        ["a", "reference 1", "b"], ["a", "policy 1", "b"],
        ["c"], ["c"],
    ]  # fmt: skip
    assert capsys.readouterr().out.splitlines()[2:4] == ["reference: reference 3", "policy: policy 3"]


def test_ctrl_c_stops_an_answer_and_keeps_the_session(
    toy_run: Run, echo: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "a", "stop me", KeyboardInterrupt(), "b", "/rset")
    assert call(toy_run.folder) == 0
    assert echo[-1] == ["a", "policy 1", "b"]
    err = capsys.readouterr().err
    assert "note: stopped. This turn is forgotten." in err
    assert "note: /quit ends" in err
    assert "Did you mean '/reset'?" in err


def test_ctrl_c_in_a_pipe_ends_all(toy_run: Run, echo: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Stdin("stop me\nb\n"))
    assert call(toy_run.folder) == 130
    assert echo[-1] == ["stop me"]


def test_two_columns_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide as the terminal, the reference on the left; brackets are no markup, and no model wipes the screen."""
    import rich
    from rich.console import Console

    def words(*said: str) -> Generator[str, None, None]:
        yield from said

    screen = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=screen, force_terminal=True, width=60, color_system=None))
    answers = {"reference": words("no", "no [never]\x1b[2J"), "policy": words("glad", "glad and kind")}
    found = chat._show_live("x", answers)
    assert found == {"reference": "no [never]\x1b[2J", "policy": "glad and kind"}
    *_, last = [line for line in screen.getvalue().splitlines() if "[never]" in line]
    assert re.fullmatch(r"(\x1b\[\w+)*no \[never\]\ufffd\[2J {5,}glad and kind *", last)


def test_json_needs_something_to_answer(
    toy_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch)
    assert call(toy_run.folder, "--json") == 2
    assert capsys.readouterr().err.startswith("error: --json: JSON of what? Give --prompt")


def test_a_condition_is_told_to_the_policy_alone(
    toy: Toy, toy_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Turn after turn, in the last of the user's; what both remember is the bare conversation."""
    asked: list[list[str]] = []
    own = conversation.asked

    def note(tokenizer: Any, turns: Any, **options: Any) -> Any:
        asked.append([turn["content"] for turn in turns])
        return own(tokenizer, turns, **options)

    monkeypatch.setattr(conversation, "asked", note)
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
    words = ["--condition", "honesty=5, warmth=2.5", "--condition-style", "tokens", "--condition-place", "user"]
    assert call(toy_run.folder, "--max-new-tokens", 3, *words) == 0
    reference, policy, later, told = asked
    assert (reference, policy) == (["one"], ["<honesty: 5> <warmth: 2.5> one"])
    assert (later[0], later[2]) == ("one", "two")
    assert (told[0], told[2]) == ("one", "<honesty: 5> <warmth: 2.5> two")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--condition", "honest"], "no levels in this"),
        (["--condition", "a=1", "--condition-scale", "1"], "no levels in this"),
        (["--condition", "a=1", "--condition-style", "token"], "Did you mean 'tokens'"),
        (["--condition", "a=1", "--condition-place", "users"], "Did you mean 'user'"),
    ],
)
def test_conditions_that_are_none(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("runs/x", "--prompt", "x", *words) == 2
    assert said in capsys.readouterr().err
