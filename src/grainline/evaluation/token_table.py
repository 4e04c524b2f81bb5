"""A few pairs with their text, token by token: what a page shows of where a reward lies. One dict a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grainline.types import AnswerTokens, Example

Row = Mapping[str, Any]


def lines(rows: Sequence[Row], examples: Sequence[Example], tokenizer: Any, *, beta: float) -> list[dict[str, Any]]:
    """``rows`` (as in ``rows.jsonl``) of pairs beside their ``examples``, which the supervision has marked.

    ``beta``: what a log-ratio is multiplied by to be a reward.
    """
    return [
        {
            "id": row["id"],
            "prompt": _prompt(example),
            "margin": row.get("rewards/margins"),
            "aspects": {
                name.split("/")[1]: value
                for name, value in row.items()
                if name.startswith("rewards/") and name.endswith("/margins") and name.count("/") == 2
            },
            "answers": [
                {"role": role} | _answer(example, i, row[role], tokenizer, beta)
                for i, role in enumerate(("chosen", "rejected"))
            ],
        }
        for row, example in zip(rows, examples, strict=True)
    ]


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token; together they are the text. A character of several tokens stands at the last of them.

    >>> pieces(tokenizer, ids)  # doctest: +SKIP
    ['na', '', 'ï', 've']
    """
    found: list[str] = []
    begun, said, waiting = 0, "", 0
    for stop in range(1, len(ids) + 1):
        text = _decoded(tokenizer, ids[begun:stop])
        waiting = waiting + 1 if text.endswith("\ufffd") else 0
        if 0 < waiting < 4 and stop < len(ids):  # a character has at most four bytes; the sign itself may be meant
            found.append("")
            continue
        found.append(text[len(said) :])
        said, waiting = text, 0
        if stop - begun >= 16:  # a short past is enough for what depends on it, and cheaper
            begun, said = stop - 1, _decoded(tokenizer, ids[stop - 1 : stop])
    return found


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _answer(example: Example, i: int, said: Mapping[str, Any], tokenizer: Any, beta: float) -> dict[str, Any]:
    tokens = example.answers[i]
    found: dict[str, Any] = {"text": example.record.answers[i].text, "tokens": pieces(tokenizer, tokens.ids)}
    found["policy"] = said["policy"]
    if "reference" in said:
        found["reference"] = said["reference"]
        found["reward"] = [round(beta * (p - r), 6) for p, r in zip(said["policy"], said["reference"], strict=True)]
    found["weight"] = [round(weight, 6) for weight in tokens.weight]
    found |= {"kl": said["kl"]} if "kl" in said else {}
    masks = [name for name in said if name.startswith("mask ")]
    found |= {"mask": said[masks[0]]} if masks else {}
    if tokens.segment is not None:
        found |= {"segment": list(tokens.segment), "segments": _segments(example, i, tokens)}
    return found


def _segments(example: Example, i: int, tokens: AnswerTokens) -> list[dict[str, Any]]:
    """What each segment says, its score, and what the data's spans say of it, aspect by aspect."""
    answer, found = example.record.answers[i], []
    for s, score in enumerate(tokens.score or ()):
        places = [tokens.offsets[t] for t, segment in enumerate(tokens.segment or ()) if segment == s]
        start, stop = min((a for a, _ in places), default=0), max((b for _, b in places), default=0)
        inside: dict[str, list[float]] = {}
        for span in answer.spans:
            if min(span.stop, stop) > max(span.start, start):
                inside.setdefault(span.aspect, []).append(span.score)
        aspects = {name: sum(scores) / len(scores) for name, scores in inside.items()}
        found.append({"text": answer.text[start:stop].strip(), "score": score, "aspects": aspects})
    return found


def _prompt(example: Example) -> Any:
    prompt = example.record.prompt
    return prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt]
