"""tokens.jsonl of an evaluation -> pairs to shade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grainline.report import heat, side_by_side, words
from grainline.report.heat import Pair, Quantity, Side
from grainline.report.jsonl import Line
from grainline.report.measured import Evaluation
from grainline.report.read import RunFiles

QUANTITIES = (
    Quantity("reward", "Reward", "beta times (log-prob under the policy, less that under the reference), nats", True),
    Quantity("weight", "Weight", "how loudly the supervision lets the token speak; 1 is plain", False),
    Quantity("mask", "Mask", "what the objective's learned mask lets through", False),
    Quantity("kl", "KL", "KL(reference || policy) over the vocabulary where the token is predicted, nats", False),
)


def heat_of(runs: Sequence[RunFiles]) -> dict[str, Any] | None:
    """Of each run the first evaluation that kept tokens, as the template shows them; None where there is none."""
    looked = [(files.name, next((one for one in files.evaluations if one.tokens), None)) for files in runs]
    kept = [(name, found) for name, found in looked if found is not None]
    signed = [q._replace(signed=q.signed or any(_below_zero(q.key, found) for _, found in kept)) for q in QUANTITIES]
    shown = heat.view(signed, [[_pair(found, line) for line in found.tokens] for _, found in kept])
    if shown is None:
        return None
    sets = list(dict.fromkeys(found.name for _, found in kept))
    names = [name if len(sets) == 1 else f"{name}, on {found.name}" for name, found in kept]
    return shown | {"names": names, "note": f"A few rows of {', '.join(sets)}, as the evaluation chose them."}


def _below_zero(key: str, found: Evaluation) -> bool:
    values = (v for line in found.tokens for answer in line["answers"] for v in answer.get(key) or ())
    return any(value is not None and value < 0 for value in values)


def _pair(found: Evaluation, line: Line) -> Pair:
    margin: Any = line.get("margin")
    known = isinstance(margin, (int, float)) and not isinstance(margin, bool)
    verdict = "" if not known else " (won)" if margin > 0 else " (lost)" if margin < 0 else " (tied)"
    title = f"{line.get('id', '')}: " + (f"margin {words.signed(margin)}{verdict}" if known else "one answer")
    aspects = line.get("aspects")
    names = ", ".join(map(str, aspects)) if isinstance(aspects, Mapping) else ""
    turns = side_by_side.turns(line.get("prompt"))
    note = _beginning(turns) + (f" (its answers differ in {names})" if names else "")
    key = found.name, found.of_rows, str(line.get("id"))
    return Pair(key, title, note, turns, [_side(answer) for answer in line["answers"]])


def _beginning(turns: Sequence[tuple[str, str]]) -> str:
    last = " ".join(turns[-1][1].split()) if turns else ""
    return last if len(last) < 90 else f"{last[:88]}…"


def _side(answer: Line) -> Side:
    count = len(answer["tokens"])
    rewards = [value for value in answer.get("reward") or () if value is not None]
    note = f"{count} tokens" + (f", reward {words.signed(sum(rewards))}" if rewards else "")
    segment = [int(s) if s is not None and 0 <= s < 1e6 else None for s in answer.get("segment") or ()]
    values = {quantity.key: answer.get(quantity.key) or () for quantity in QUANTITIES}
    segments = [_segment(i, one) for i, one in enumerate(answer.get("segments", ()), start=1)]
    return Side(str(answer.get("role", "answer")), answer["tokens"], values, segment, segments, note)


def _segment(number: int, found: Line) -> str:
    score, aspects = found.get("score"), found.get("aspects")
    said = f"Segment {number}" + (f", score {words.number(score, 2)}" if score is not None else "")
    named = _named(aspects, lambda value: words.number(value, 2)) if isinstance(aspects, Mapping) else ""
    return f"{said}: {named}" if named else said


def _named(found: Mapping[str, Any], say: Any) -> str:
    numbers = {k: v for k, v in found.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return ", ".join(f"{name or 'any'} {say(value)}" for name, value in numbers.items())
