"""Write rows in other columns: prompts out or in, chat turns or plain texts, pairs as labelled answers.

All kinds of rows that training reads (:mod:`grainline.data.columns`) are read; so an implied prompt is found, whole
conversations are parted, and steps with labels become one answer with spans. Of a pair that is parted each answer keeps
what its columns said of it: ``chosen_spans`` becomes ``completion_spans``. Public data sets' own columns are read by
``--format`` before the first step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from grainline.curation._parts import record
from grainline.curation._seam import Bench, Dropped, Row, Step, identity, signed
from grainline.data.fields import FINE
from grainline.data.row_checks import sides
from grainline.errors import DataError
from grainline.rooms import text as written
from grainline.types import Answer, Record, spec

_READ = frozenset({"prompt", "chosen", "rejected", "completion", "completions", "labels", "label", "messages"})
_TRL = frozenset({"id", "tools", "chat_template_kwargs", "margin"})
"""Columns that TRL's trainers read beside the texts, and the row's name."""


@spec
class Convert:
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    kind: Literal["same", "labelled", "completion", "messages"] = "same"
    """same = a pair stays a pair; labelled = each answer by itself with its label; completion = desirable answers
    alone; messages = the same as whole conversations."""
    style: Literal["same", "conversational", "standard"] = "same"
    """conversational = chat turns; standard = plain texts (a prompt of one user turn); same = as the prompt is."""
    prompt: Literal["explicit", "implicit"] = "explicit"
    """explicit = a column of its own; implicit = a pair's answers begin with it."""
    columns: Literal["all", "trl"] = "all"
    """all = further columns are kept; trl = only what TRL's trainers read, and the id."""

    @model_validator(mode="after")
    def _fitting(self) -> Convert:
        if self.kind == "messages" and self.style == "standard":
            raise ValueError("messages are chat turns: style is not standard")
        if self.prompt == "implicit" and self.kind != "same":
            raise ValueError("only a pair may hold its prompt in its answers")
        return self

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        yield self._each

    def _each(self, rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
        for row in rows:
            if row.get("answers") is not None:
                raise DataError("a row of several answers is no pair yet.", where=f"{identity(row)} answers")
            made = list(self._made(row, record(row)))
            yield made or Dropped("an undesirable answer")

    def _made(self, row: Row, read: Record) -> Iterator[Row]:
        if self.kind == "same" and read.is_pair:
            yield self._finished(row, self._pair(row, read), keep=("chosen", "rejected"))
            return
        for name, answer in zip(sides(read), read.answers, strict=True):
            label = name == "chosen" if read.is_pair else bool(read.label)
            if label or self.kind in ("same", "labelled"):
                yield self._finished(row, self._one(row, read, name, answer, label), keep=(name,))

    def _pair(self, row: Row, read: Record) -> dict[str, Any]:
        asked, *said = self._texts(read, read.answers)
        if self.prompt == "explicit":
            return {"prompt": asked, "chosen": said[0], "rejected": said[1]}
        fine = [f"{name}_{kind}" for name in sides(read) for kind in FINE if row.get(f"{name}_{kind}")]
        if fine:
            raise DataError("counts from an explicit prompt.", where=f"{identity(row)} {fine[0]}")
        return {name: _joined(asked, one) for name, one in zip(("chosen", "rejected"), said, strict=True)}

    def _one(self, row: Row, read: Record, name: str, answer: Answer, label: bool) -> dict[str, Any]:
        asked, said = self._texts(read, [answer])
        if self.kind == "messages":
            return {"messages": asked + said}
        found: dict[str, Any] = {"prompt": asked, "completion": said}
        steps = row.get("labels") is not None
        if self.kind == "labelled" or row.get("label") is not None or steps:
            found |= {"label": label}
        if steps and self.columns == "all":
            found |= {"completion_spans": [_span(*span) for span in answer.spans]}
        return found

    def _texts(self, read: Record, answers: Iterable[Answer]) -> tuple[Any, ...]:
        """The prompt and the answers, all in one style."""
        plain = isinstance(read.prompt, str) if self.style == "same" else self.style == "standard"
        if self.kind == "messages" or not plain:
            return _turns(read.prompt), *(_spoken(answer) for answer in answers)
        return _plain(read), *(_text(answer, read) for answer in answers)

    def _finished(self, row: Row, made: Mapping[str, Any], keep: tuple[str, ...]) -> Row:
        """``made`` and the row's further columns, those of the one answer under its new name."""
        further = {}
        for key, value in row.items():
            side = next((name for name in ("chosen", "rejected") if key.startswith(f"{name}_")), "")
            if key in _READ or (side and side not in keep) or (self.columns == "trl" and key not in _TRL):
                continue
            parted = len(keep) == 1 and side
            further[f"completion{key.removeprefix(side)}" if parted else key] = value
        whole = {**further, **made}
        return whole if self.columns == "trl" or whole == row else signed(whole, written(self))


def _joined(asked: Any, said: Any) -> Any:
    """Prompt and answer as one; between plain texts white space, which tells where the prompt ends."""
    apart = isinstance(asked, str) and not asked[-1].isspace() and not said[0].isspace()
    return f"{asked} {said}" if apart else asked + said


def _turns(prompt: str | tuple[Mapping[str, Any], ...]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(turn) for turn in prompt]


def _spoken(answer: Answer) -> list[dict[str, Any]]:
    return [dict(turn) for turn in answer.messages] or [{"role": "assistant", "content": answer.text}]


def _plain(read: Record) -> str:
    if isinstance(read.prompt, str):
        return read.prompt
    if len(read.prompt) > 1 or read.prompt[0]["role"] != "user":
        raise DataError(
            "a prompt of several turns has no plain form.",
            where=f"{read.where} prompt",
            instead="Keep it conversational; the chat template writes it out.",
        )
    return str(read.prompt[0]["content"])


def _text(answer: Answer, read: Record) -> str:
    if answer.messages:
        raise DataError("an answer of several turns has no plain form.", where=read.where)
    return answer.text


def _span(start: int, stop: int, aspect: str, score: float) -> dict[str, Any]:
    return {"start": start, "end": stop, "aspect": aspect, "score": score}
