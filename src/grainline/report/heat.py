"""Pairs token by token, for the page: each token with a class and a figure for each quantity, so that one radio button
switches the shades of all, and another the run that they are of, without a script."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from grainline.report import shades, words

PAIRS = 12
"""Pairs that are shown of a run."""
ALL = 24
"""Pairs that are shown of several runs together, so that the page stays small; of each run at least one."""
TOKENS = 400
"""Tokens of an answer that are shown."""
TEXT = 60
"""Characters of a token that are shown; vocabularies hold few that are longer."""


class Quantity(NamedTuple):
    """Something that each token of a pair has."""

    key: str  # as the file calls it
    title: str
    note: str  # what it says, with its unit
    signed: bool  # whether it lies on both sides of zero


class Side(NamedTuple):
    """One answer of a pair."""

    who: str  # "chosen", "rejected"
    tokens: Sequence[str]
    values: Mapping[str, Sequence[float | None]]  # of each quantity, one a token
    segment: Sequence[int | None]  # of each token; empty where there are no segments
    segments: Sequence[str]  # what is said of each
    note: str  # of the whole answer


class Pair(NamedTuple):
    key: Hashable  # the same pair, read by several runs, has one place
    title: str  # what the run says of it
    note: str
    turns: Sequence[tuple[str, str]]  # the prompt: who, text
    sides: Sequence[Side]


def view(quantities: Sequence[Quantity], runs: Sequence[Sequence[Pair]]) -> dict[str, Any] | None:
    """What the template fills in, from each run's pairs; None where no token has a number. One scale holds for all."""
    each = min(PAIRS, max(1, ALL // max(1, len(runs))))
    shown = [pair for pairs in runs for pair in pairs[:each]]
    limits = {q.key: shades.strongest(_numbers(q.key, shown)) for q in quantities}
    there = [q for q in quantities if any(True for _ in _numbers(q.key, shown))][: len(shades.SLOTS)]
    if not there:
        return None
    slots = dict(zip(shades.SLOTS, there, strict=False))
    choices = [
        {
            "slot": slot,
            "number": i,
            "title": q.title,
            "note": q.note,
            "scale": _scale(q, limits[q.key]),
        }
        for i, (slot, q) in enumerate(slots.items(), start=1)
    ]
    return {
        "choices": choices,
        "pairs": _merged([pairs[:each] for pairs in runs], slots, limits),
        "more": max(0, max(len(pairs) for pairs in runs) - each),
        "segments": any(side.segments for pair in shown for side in pair.sides),
    }


def _numbers(key: str, pairs: Iterable[Pair]) -> Iterable[float]:
    return (
        value
        for pair in pairs
        for side in pair.sides
        for value in side.values.get(key, ())[:TOKENS]
        if value is not None and math.isfinite(value)
    )


def _scale(quantity: Quantity, limit: float) -> list[tuple[str, str]]:
    """The legend: class and figure of each shade, from low to high."""
    steps = range(-shades.STEPS if quantity.signed else 0, shades.STEPS + 1)
    say = words.signed if quantity.signed else words.number
    return [
        (f"{'p' if step > 0 else 'n'}{abs(step)}" if step else "", say(limit * step / shades.STEPS, 2))
        for step in steps
    ]


def _merged(
    runs: Sequence[Sequence[Pair]], slots: Mapping[str, Quantity], limits: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Each pair once, with what each run that read it says of it; runs are counted from 1."""
    found: dict[Hashable, dict[str, Any]] = {}
    for number, pairs in enumerate(runs, start=1):
        times: Counter[Hashable] = Counter()
        for pair in pairs:
            times[pair.key] += 1  # files may call two rows the same
            key = pair.key, times[pair.key]
            place = found.setdefault(key, {"note": pair.note, "turns": _turns(pair), "runs": []})
            place["runs"].append({"number": number} | _said(pair, slots, limits))
    return list(found.values())


def _turns(pair: Pair) -> list[dict[str, Any]]:
    return [
        {"who": who, **dict(zip(("text", "more"), words.cut(text, 1_500), strict=True))} for who, text in pair.turns
    ]


def _said(pair: Pair, slots: Mapping[str, Quantity], limits: Mapping[str, float]) -> dict[str, Any]:
    return {
        "title": pair.title,
        "sides": [
            {
                "who": side.who,
                "note": side.note,
                "count": len(side.tokens),
                "more": max(0, len(side.tokens) - TOKENS),
                "tokens": _tokens(side, slots, limits),
                "segments": side.segments,
            }
            for side in pair.sides
        ],
    }


def _tokens(side: Side, slots: Mapping[str, Quantity], limits: Mapping[str, float]) -> Any:
    from markupsafe import Markup, escape

    said = []
    for t, text in enumerate(side.tokens[:TOKENS]):
        classes, figures = ["t"], []
        for slot, quantity in slots.items():
            values = side.values.get(quantity.key, ())
            value = values[t] if t < len(values) else None
            if value is None:
                continue
            classes.append(shades.css_class(slot, value, limits[quantity.key]))
            figures.append(f'data-{slot}="{words.signed(value) if quantity.signed else words.number(value)}"')
        segment = side.segment[t] if t < len(side.segment) else None
        if segment is not None:
            figures.append(f'data-s="{int(segment)}"')
            if t and side.segment[t - 1] != segment:
                classes.append("cut")
        said.append(
            f'<span class="{" ".join(filter(None, classes))}" {" ".join(figures)}>{escape(_visible(text))}</span>'
        )
    return Markup("".join(said))


def _visible(text: str) -> str:
    """A token as it can be seen: line ends and tabs have a shape, an empty one too."""
    beginning, more = words.cut(words.harmless(text), TEXT)
    shown = beginning.replace("\n", "↵\n").replace("\t", "⇥\t") + ("…" if more else "")
    return shown or "∅"
