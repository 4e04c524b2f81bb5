"""A condition: what quality the answer shall have, said in the prompt. One function renders it, for training and use.

Data made under conditions (the steps ``relabel`` and ``control`` of curation) keep theirs in the column ``condition``,
and what a model is asked at inference has to read letter for letter as in training: both call :func:`conditioned`.

============  ==========================================================================================================
``goal``      a sentence that names target scores and their scale, and a line for each: reward-augmented data
              (arXiv:2410.08067), with the scale and the last line of its release, in words of our own
``tokens``    ``<honesty: 5> <helpfulness: 4>``, plain text and no new vocabulary: controllable preference optimisation
              (arXiv:2402.19085); its release writes them alike, up to spaces
============  ==========================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from grainline.errors import DataError

Prompt = str | tuple[Mapping[str, Any], ...]
Style = Literal["goal", "tokens"]
Place = Literal["system", "user"]


class Condition(NamedTuple):
    """What an answer is asked to be."""

    levels: Mapping[str, float]  # aspect -> the level asked for, in the order in which they are written
    style: Style = "goal"
    place: Place = "system"  # of chat prompts: in the system's turn, or before what the user says last
    scale: tuple[float, float] = (1.0, 10.0)  # worst, best

    def said(self) -> dict[str, Any]:
        """As it stands in a row's column ``condition``; ``Condition(**said)`` reads it."""
        return {**self._asdict(), "levels": dict(self.levels), "scale": list(self.scale)}

    def best(self) -> Condition:
        """The same aspects at the best level: what one asks for at inference."""
        return self._replace(levels=dict.fromkeys(self.levels, self.scale[1]))


def conditioned(prompt: Prompt, condition: Condition) -> Prompt:
    """``prompt`` with the condition in it; without levels it stays as it is.

    A system turn that is there keeps its words and gets the condition behind them. A plain-text prompt has no turns:
    there the condition stands in front, whatever its ``place``.

    >>> conditioned("Why?", Condition({"honesty": 5}, "tokens"))
    '<honesty: 5> Why?'

    Raises:
        DataError: place=user and the conversation does not end with the user's turn.
    """
    if not condition.levels:
        return prompt
    text, between = _text(condition), " " if condition.style == "tokens" else "\n\n"
    if isinstance(prompt, str):
        return f"{text}{between}{prompt}"
    turns = [dict(turn) for turn in prompt]
    if condition.place == "user":
        if turns[-1]["role"] != "user":
            raise DataError(
                f"a condition goes before what the user says, and the {turns[-1]['role']} speaks last.",
                where="prompt",
                instead="Choose place=system.",
            )
        turns[-1]["content"] = f"{text}{between}{turns[-1]['content']}"
    elif turns[0]["role"] in ("system", "developer"):
        before = turns[0].get("content") or ""
        turns[0]["content"] = f"{before}\n\n{text}" if before else text
    else:
        turns.insert(0, {"role": "system", "content": text})
    return tuple(turns)


def level(score: float) -> str:
    """A level as it is written: 8.0 is 8, 6.5 is 6.5.

    >>> level(8.0), level(6.5)
    ('8', '6.5')
    """
    return str(int(score)) if float(score).is_integer() else repr(float(score))


def _text(condition: Condition) -> str:
    if condition.style == "tokens":
        return " ".join(f"<{aspect}: {level(asked)}>" for aspect, asked in condition.levels.items())
    low, high = map(level, condition.scale)
    goals = "\n".join(f"{aspect.capitalize()} score: {level(asked)}." for aspect, asked in condition.levels.items())
    return (
        f"You answer what the user asks, and the quality of your answer is to match the target scores below, "
        f"without any mention of them. On their scale, {low} is the worst and {high} the best.\n{goals}"
    )
