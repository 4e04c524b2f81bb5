"""A run in a few lines, for a notebook's own output cell: the verdict, its sentence, what next."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from grainline.report import facts, headline, read, words


def card(folder: str | Path) -> str:
    """A run as a small piece of HTML without script or style sheet.

    Raises:
        RunError: not a run, or a damaged file.
    """
    (files,) = read.runs([folder])
    said = headline.one(files)
    steps = list(map(_coded, said.next))
    rows = {key: value for key, value in facts.choices(files).items() if key != "Data"} | facts.cost(files)
    parts = [
        f"<b>{_text(files.name)}</b> · {_text(said.verdict)}<br>{_text(said.sentence)}",
        f"<ul>{''.join(f'<li>{step}</li>' for step in steps)}</ul>" if steps else "",
        f"<details><summary>Choices and cost</summary>{table(rows)}</details>",
    ]
    return f"<div>{''.join(parts)}</div>"


def table(rows: Mapping[str, str]) -> str:
    """Names and what they are, as HTML."""
    lines = (
        f'<tr><th style="text-align: left">{_text(name)}</th><td style="text-align: left">{_text(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{''.join(lines)}</table>"


def _coded(line: str) -> str:
    return "".join(f"<code>{_text(part)}</code>" if code else _text(part) for code, part in words.pieces(line))


def _text(text: str) -> str:
    return escape(words.harmless(text))
