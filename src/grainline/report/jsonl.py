"""Files of JSON and text, read whole and checked; what is damaged is named by file and line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grainline.errors import RunError

Line = Mapping[str, Any]
Check = Callable[[Line], str]
"""Says what is wrong with an object; empty where nothing is."""


def text(file: Path) -> str:
    """What a file says.

    Raises:
        RunError: it is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise damaged(file, f"not UTF-8: {error.reason}") from error


def one(file: Path, check: Check | None = None) -> Line:
    """The object that a file holds.

    Raises:
        RunError: it cannot be read, or ``check`` has something to say.
    """
    try:
        found = json.loads(text(file))
    except (ValueError, RecursionError) as error:
        raise damaged(file, f"unreadable: {error}") from error
    return _checked(found, str(file), check)


def many(file: Path, check: Check) -> list[Line]:
    """The objects of a file, one a line; none where there is no file. A last line that was cut short is left out.

    Raises:
        RunError: a line cannot be read, or ``check`` has something to say.
    """
    if not file.is_file():
        return []
    lines = [(i, line) for i, line in enumerate(text(file).split("\n"), start=1) if line.strip()]
    found = []
    for i, line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            if i == lines[-1][0]:  # written while the run was killed
                break
            raise damaged(f"{file}:{i}", f"unreadable: {error}") from error
        found.append(_checked(value, f"{file}:{i}", check))
    return found


def damaged(where: str | Path, what: str) -> RunError:
    """The error that names a damaged file."""
    return RunError(f"{what}.", where=str(where), instead="Grainline writes the run's files; restore this one.")


def _checked(found: Any, where: str, check: Check | None) -> Line:
    wrong = "not an object" if not isinstance(found, Mapping) else check(found) if check else ""
    if wrong:
        raise damaged(where, wrong)
    return found
