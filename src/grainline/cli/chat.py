"""``grainline chat``: policy and reference side by side."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from grainline.errors import UserError, nearest

if TYPE_CHECKING:
    from grainline.conversation import Speakers, Turns
    from grainline.generation import Manner

COMMANDS = ("/quit", "/reset")

Talks = Mapping[str, "Turns"]  # voice -> its own conversation
Answers = Mapping[str, Generator[str, None, None]]  # voice -> what it says so far, again and again
Show = Callable[[str, Answers], dict[str, str]]


def chat(
    run: Annotated[str, typer.Argument(help="The folder of a run.")],
    prompt: Annotated[str, typer.Option("--prompt", help="Ask this alone; else a conversation begins.")] = "",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Tokens of an answer.")] = 256,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 = the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of what is drawn, the same for both.")] = 0,
    policy_only: Annotated[bool, typer.Option("--policy-only", help="Without the reference.")] = False,
    condition: Annotated[
        str, typer.Option("--condition", help="What a conditioned policy is told: ASPECT=LEVEL, a comma between.")
    ] = "",
    style: Annotated[str, typer.Option("--condition-style", help="As in its data: goal or tokens.")] = "goal",
    place: Annotated[str, typer.Option("--condition-place", help="As in its data: system or user.")] = "system",
    scale: Annotated[str, typer.Option("--condition-scale", help="Worst and best level.")] = "1,10",
    json: Annotated[bool, typer.Option("--json", help="Print JSON: prompt, reference, policy.")] = False,
) -> None:
    """Talk to a run: policy and reference side by side.

    A conversation goes on over several turns: /reset begins anew, /quit ends, Ctrl-C stops an answer. From a pipe each
    line is a turn.

    \b
    Examples:
      grainline chat runs/first
      grainline chat runs/first --prompt "How do I boil an egg?" --json
      grainline chat runs/first --policy-only --temperature 0.7 --seed 1 < turns.txt
      grainline chat runs/first --condition helpfulness=10,honesty=10
    """
    told = _told(condition, style, place, scale) if condition else None
    if json and not prompt and sys.stdin.isatty():
        raise UserError("JSON of what?", where="--json", instead="Give --prompt, or one turn a line on standard input.")

    from grainline import conversation
    from grainline.cli import _print
    from grainline.generation import Manner

    found = importlib.import_module("grainline.runs").Run(run)  # imports torch
    speakers = conversation.load(found.recipe, found.adapter, policy_only=policy_only)._replace(told=told)
    if speakers.remark:
        _print.note(speakers.remark)
    if not prompt and not speakers.tokenizer.chat_template:
        _print.note("the tokenizer has no chat template: each turn stands alone, as text to go on with")
    manner = Manner(max_new_tokens, temperature, seed)
    show = _show_json if json else _show_live if sys.stdout.isatty() and not prompt else _show_plain
    if prompt:
        _turn(speakers, {}, prompt, manner, show)
    else:
        _converse(speakers, _lines(), manner, show)


def _told(condition: str, style: str, place: str, scale: str) -> Callable[[Turns], Turns]:
    """Turns -> turns with the condition in them, as :mod:`grainline.data.conditions` writes it.

    Raises:
        UserError: the options say none.
    """
    from grainline.data.conditions import Condition, conditioned

    try:
        levels = {name.strip(): float(level) for name, _, level in (x.partition("=") for x in condition.split(","))}
        worst, best = map(float, scale.split(","))
    except ValueError as error:
        example = "Write --condition helpfulness=10,honesty=10 and, if need be, --condition-scale 1,10."
        raise UserError("no levels in this.", where=f"--condition {condition}", instead=example) from error
    for option, given, known in (("style", style, ("goal", "tokens")), ("place", place, ("system", "user"))):
        if given not in known:
            raise UserError(f"no {option} {given!r}.", where=f"--condition-{option}", instead=nearest(given, known))
    made = Condition(levels, style, place, (worst, best))  # type: ignore[arg-type]
    return lambda turns: conditioned(turns, made)  # type: ignore[return-value]


def _converse(speakers: Speakers, lines: Iterator[str], manner: Manner, show: Show) -> None:
    """Turn after turn; on a terminal a mistake or Ctrl-C costs one turn, not the conversation."""
    from grainline.cli import _print

    talks: Talks = {}
    for line in lines:
        if line == "/quit":
            return
        if line == "/reset":
            talks = {}
            _print.note("a new conversation")
        elif line.startswith("/") and " " not in line:
            _print.note(f"no command {line}. {nearest(line, COMMANDS)}")
        elif line:
            try:
                talks = _turn(speakers, talks, line, manner, show)
            except (UserError, KeyboardInterrupt) as error:
                if not sys.stdin.isatty():
                    raise
                _print.note(f"{str(error) or 'stopped.'} This turn is forgotten.")


def _turn(speakers: Speakers, talks: Talks, said: str, manner: Manner, show: Show) -> Talks:
    """All voices answer; the conversations with their answers in them."""
    from grainline import conversation, generation
    from grainline.cli import _print

    tokenizer = speakers.tokenizer
    longer = {v.name: (*talks.get(v.name, ()), {"role": "user", "content": said}) for v in speakers.voices}
    answers: dict[str, Generator[str, None, None]] = {}
    for voice in speakers.voices:
        window = generation.window(voice.model)
        turns, place = longer[voice.name], speakers.place
        if speakers.told and voice.name == "policy":
            turns = speakers.told(turns)
        question = conversation.asked(tokenizer, turns, window=window, manner=manner, place=place)
        if question.shortened:
            _print.note(f"{voice.name}: the beginning of the conversation is beyond the model's window, and left out")
        answers[voice.name] = conversation.speak(voice, tokenizer, question, manner)
    whole = show(said, answers)
    return {name: (*turns, {"role": "assistant", "content": whole[name]}) for name, turns in longer.items()}


def _lines() -> Iterator[str]:
    """What the user says, a turn at a time, until there is no more."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin)
        return
    from grainline.cli import _print

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # the arrow keys edit
    while True:
        try:
            yield input("> ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            _print.note("/quit ends")


def _show_plain(said: str, answers: Answers) -> dict[str, str]:
    whole = {}
    for name, pieces in answers.items():
        *_, whole[name] = pieces
        words = _harmless(whole[name]) if sys.stdout.isatty() else whole[name]
        print(f"{name}: {words}" if len(answers) > 1 else words, flush=True)
    return whole


def _show_json(said: str, answers: Answers) -> dict[str, str]:
    from grainline.cli import _print

    whole = {name: list(pieces)[-1] for name, pieces in answers.items()}
    _print.as_json({"prompt": said, **whole})
    return whole


def _show_live(said: str, answers: Answers) -> dict[str, str]:
    """A column for each voice, filled as it speaks."""
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    whole = dict.fromkeys(answers, "")

    def columns() -> Table:
        table = Table.grid(padding=(0, 3), expand=True)
        for _ in whole:
            table.add_column(ratio=1)
        table.add_row(*(Text(name, style="bold") for name in whole))
        table.add_row(*(Text(_harmless(words)) for words in whole.values()))
        return table

    with Live(columns(), auto_refresh=False) as live:
        for name, pieces in answers.items():
            with contextlib.closing(pieces):
                for words in pieces:
                    whole[name] = words
                    live.update(columns(), refresh=True)
    return whole


def _harmless(words: str) -> str:
    """What a terminal may be sent: a model's control characters could move its cursor or wipe it."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in words)
