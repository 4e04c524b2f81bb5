"""``grainline peek``: who speaks in an answer, and how loudly, before a minute is spent."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from rich.text import Text

    from grainline.types import Answer, AnswerTokens, Example

_LOUD, _FAULT = (24, 103, 164), (184, 92, 0)
"""Blue for weights above 0, orange below: told apart by colour-blind people too."""


class Part(NamedTuple):
    """Tokens that speak together: a segment, or a stretch of equal weight."""

    tokens: range
    text: str
    weight: float  # mean over its tokens
    score: float | None  # where the supervision makes segments
    aspects: dict[str, float]  # what the data says of it


def peek(
    data: Annotated[str, typer.Argument(help="Records: a file, folder, hub id, or house.")],
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many rows.")] = 3,
    model: Annotated[str, typer.Option("--model", help="Whose tokens: hub id, folder or alias.")] = (
        "smollm2-135m-instruct"
    ),
    supervision: Annotated[str, typer.Option("--supervision", help="A method of the supervision room.")] = "segments",
    split: Annotated[str, typer.Option("--split", help="Split of a hub id or folder.")] = "train",
    format: Annotated[str, typer.Option("--format", help="A public data set's own columns.")] = "",
    max_length: Annotated[int, typer.Option("--max-length", help="Tokens of prompt + answer.")] = 1024,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: a list of rows.")] = False,
) -> None:
    """Show which tokens will speak, and how loudly.

    Each answer is shaded by the weight of its tokens; below it stand its segments with their scores and aspects.

    \b
    Examples:
      grainline peek house -n 1
      grainline peek pairs.jsonl --model HuggingFaceTB/SmolLM2-360M-Instruct --supervision sequence
      grainline peek house --supervision segments:by=answer --json
    """
    from grainline import models, rooms
    from grainline.cli import _print
    from grainline.data import load
    from grainline.data.encode import Encoder

    method: Any = rooms.resolve("supervision", supervision)
    read = load.read(os.path.expanduser(data), split=split, limit=number, format=format)
    load.refuse(read)
    encoder = Encoder(models.load_tokenizer(models.Choice(model)), max_length=max_length)
    examples, problems = encoder.encode_all(read.records)
    load.refuse(load.Loaded(read.records, problems, read.name, ""))
    marked = [method(example) for example in examples]
    if json:
        _print.as_json([_as_dict(example) for example in marked])
        return
    if not any(answer.spans for example in marked for answer in example.record.answers):
        _print.note("no span in these rows: nobody has judged parts of their answers")
    for example in marked:
        _show(example, encoder.tokenizer)


def parts(answer: Answer, tokens: AnswerTokens) -> list[Part]:
    """An answer's tokens as they speak together, in order."""
    voice: Sequence[float] = tokens.segment if tokens.segment is not None else tokens.weight
    cuts = [0, *(t for t in range(1, len(voice)) if voice[t] != voice[t - 1]), len(voice)]
    return [_part(answer, tokens, range(a, b)) for a, b in itertools.pairwise(cuts)]


def _part(answer: Answer, tokens: AnswerTokens, inside: range) -> Part:
    places = [tokens.offsets[t] for t in inside if tokens.offsets[t][0] < tokens.offsets[t][1]]
    start, stop = (places[0][0], places[-1][1]) if places else (0, 0)
    judged = [s for s in answer.spans if answer.text[max(s.start, start) : min(s.stop, stop)].strip()]
    score = tokens.score[tokens.segment[inside[0]]] if tokens.score and tokens.segment else None
    weight = sum(tokens.weight[t] for t in inside) / len(inside)
    return Part(inside, answer.text[start:stop], weight, score, {s.aspect: s.score for s in judged})


def _sides(example: Example) -> list[tuple[str, Answer, AnswerTokens]]:
    names = ("chosen", "rejected") if example.record.is_pair else (f"label {example.record.label}",)
    return list(zip(names, example.record.answers, example.answers, strict=True))


def _as_dict(example: Example) -> dict[str, Any]:
    return {
        "id": example.record.id,
        "where": example.record.where,
        "prompt_tokens": len(example.prompt),
        "answers": {
            name: {
                "tokens": len(tokens.ids),
                "segments": [
                    {"text": p.text, "tokens": len(p.tokens), "weight": p.weight, "score": p.score}
                    | {"aspects": p.aspects}
                    for p in parts(answer, tokens)
                ],
            }
            for name, answer, tokens in _sides(example)
        },
    }


def _show(example: Example, tokenizer: Any) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    asked = example.record.prompt
    words = asked if isinstance(asked, str) else str(asked[-1].get("content") or "")
    console.print(f"{example.record.where}  {example.record.id}", style="bold", markup=False)
    console.print(f"prompt ({len(example.prompt)} tokens): {' '.join(words.split())[-300:]}\n", markup=False)
    loudest = max(abs(weight) for answer in example.answers for weight in answer.weight) or 1.0
    for name, answer, tokens in _sides(example):
        total = sum(tokens.weight)
        console.print(f"{name}: {len(tokens.ids)} tokens speak with {total:.1f} in all", style="bold", markup=False)
        console.print(_shaded(answer, tokens, tokenizer, loudest))
        console.print(_table(parts(answer, tokens)))


def _shaded(answer: Answer, tokens: AnswerTokens, tokenizer: Any, loudest: float) -> Text:
    """The answer with each token on a ground as dark as it speaks loudly; a bar between segments."""
    from rich.text import Text

    shown, after = Text(), 0
    for t, (start, stop) in enumerate(tokens.offsets):
        if t and tokens.segment is not None and tokens.segment[t] != tokens.segment[t - 1]:
            shown.append("|", style="dim")
        # Tokens of one character (an emoji's bytes) share it: it is written once.
        words = answer.text[max(start, after) : stop] if start < stop else tokenizer.decode([tokens.ids[t]])
        after = max(after, stop)
        shown.append(words, style=_ground(tokens.weight[t] / loudest))
    return shown


def _ground(weight: float) -> str:
    """A terminal colour between black (silent) and full (loudest)."""
    full = _LOUD if weight >= 0 else _FAULT
    shade = ",".join(str(round(colour * abs(weight))) for colour in full)
    return f"white on rgb({shade})"


def _table(found: Sequence[Part]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    aspects = list(dict.fromkeys(aspect for part in found for aspect in part.aspects))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, expand=True)
    for name in ("", "score", "weight", *(aspect[:4] or "any" for aspect in aspects)):
        table.add_column(Text(name), justify="right", width=max(4, len(name)))
    table.add_column("text", no_wrap=True, ratio=1)
    for n, part in enumerate(found, start=1):
        score = "" if part.score is None else f"{part.score:.2f}"
        judged = [f"{part.aspects[aspect]:.2f}" if aspect in part.aspects else "" for aspect in aspects]
        table.add_row(
            str(n), score, f"{part.weight:.2f}", *judged, Text(" ".join(part.text.split()), overflow="ellipsis")
        )
    return table
