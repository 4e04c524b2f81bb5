"""Lines of a measurement under way: written one after another, and not measured again when it goes on.

A journal belongs to what decides its lines (model, adapter, data, options): its key. One that was begun under another
key begins anew. A last line that a crash cut short is dropped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grainline import atomic

KEYS = "keys.json"
"""Beside the journals: whose lines they hold."""


def key_of(**decides: Any) -> str:
    """sha256 of what decides a measurement."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


class Journal:
    """A ``.jsonl`` file whose lines have an ``id``."""

    def __init__(self, file: Path, key: str, *, writes: bool = True) -> None:
        self.file, self.writes = file, writes  # of several processes one writes
        keys = _keys(file.parent)
        mine = keys.get(file.name) == key
        self.lines: dict[str, dict[str, Any]] = {line["id"]: line for line in _read(file)} if mine else {}
        if writes:  # without what is another's, or was cut short by a crash
            atomic.text(file, "".join(map(_line, self.lines.values())))
            atomic.text(file.parent / KEYS, json.dumps(keys | {file.name: key}, indent=1))

    def __contains__(self, name: str) -> bool:
        return name in self.lines

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write ``lines`` at the end."""
        found = [clean(dict(line)) for line in lines]
        if self.writes:
            with self.file.open("a", encoding="utf-8", newline="\n") as out:
                out.write("".join(map(_line, found)))
        self.lines |= {line["id"]: line for line in found}

    def ordered(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """The lines with these ids in this order; the file is put in it too."""
        found = [self.lines[name] for name in names]
        if self.writes:
            atomic.text(self.file, "".join(map(_line, found)))
        return found


def clean(value: Any) -> Any:
    """``value`` as JSON can hold it: no NaN, no infinity."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {str(k): clean(v) for k, v in value.items()}
    return [clean(v) for v in value] if isinstance(value, (list, tuple)) else value


def _line(value: Mapping[str, Any]) -> str:
    # Lone surrogates cannot be written as UTF-8, and U+2028 ends a line for some readers: ASCII escapes hold both.
    return json.dumps(value, allow_nan=False) + "\n"


def _read(file: Path) -> list[dict[str, Any]]:
    found = []
    for text in file.read_text(encoding="utf-8").split("\n") if file.is_file() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("id"), str):
            found.append(line)
    return found


def _keys(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / KEYS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
