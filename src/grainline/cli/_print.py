"""How commands speak: results on standard output, remarks on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def is_first_process() -> bool:
    """Whether this process speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def note(message: str) -> None:
    """A remark for the user, one line on standard error."""
    print(f"note: {message}", file=sys.stderr)


def as_json(value: Any) -> None:
    """``value`` as JSON on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on standard output: as wide as the terminal, or as its longest line where nobody looks."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(*columns, title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    with console.capture() as captured:
        console.print(shown)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def metrics(found: Mapping[str, Any], title: str = "", before: Mapping[str, Any] | None = None) -> None:
    """Named numbers, one a line, with their intervals; those of ``before`` beside them."""
    names = [name for name in found if not _is_bound(name, found)]
    if not before:
        table(("metric", "value"), [(name, interval(name, found)) for name in names], title)
        return
    rows = [(name, interval(name, before) if name in before else "", interval(name, found)) for name in names]
    table(("metric", "before", "after"), rows, title)


def _is_bound(name: str, found: Mapping[str, Any]) -> bool:
    """Whether a metric is the end of another's interval."""
    return any(name.endswith(end) and name.removesuffix(end) in found for end in ("_low", "_high"))


def interval(name: str, found: Mapping[str, Any]) -> str:
    """A metric with its 95 % interval, where it has one: ``0.61 [0.57, 0.65]``."""
    bounds = [number(found[name + end]) for end in ("_low", "_high") if name + end in found]
    return number(found[name]) + (f" [{', '.join(bounds)}]" if bounds else "")


def number(value: Any) -> str:
    """A number with four significant digits; anything else as it is.

    >>> number(0.123456), number(3), number("x")
    ('0.1235', '3', 'x')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)
