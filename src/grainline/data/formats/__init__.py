"""Public data sets as they were published -> rows in our columns. The folder is the registry: a file is a format.

``prm800k.py`` *is* the format ``prm800k``; ``math_shepherd.py`` is ``math-shepherd``. A format's file holds

``SIGNATURE``
    columns that together tell the data set from others, for the message to somebody who forgot to name the format;
``rows(rows)``
    native rows in, rows in the columns of ``data/columns.py`` out, each with its place. A row that cannot be used comes
    out as the DataError that says so, one that by its nature makes no row of ours as :class:`Skipped` with the reason.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from grainline.data import files
from grainline.data.formats._seam import Skipped
from grainline.errors import DataError, nearest

__all__ = ["Skipped", "converted", "names", "resembled"]


def names() -> list[str]:
    """All formats, sorted."""
    return sorted(path.stem.replace("_", "-") for path in Path(__file__).parent.glob("[!_]*.py"))


def converted(name: str, rows: Iterable[files.Row]) -> Iterator[files.Row]:
    """``rows`` of the format ``name`` as rows in our columns."""
    if name not in names():
        raise DataError(f"no format {name!r}.", instead=nearest(name, names()))
    return _module(name).rows(rows)


def resembled(row: Any) -> str:
    """The format whose columns ``row`` has, or "": only a row without an answer in our columns resembles one."""
    if not isinstance(row, Mapping) or {"chosen", "rejected", "completion", "messages"} & set(row):
        return ""
    return next((name for name in names() if set(row) >= _module(name).SIGNATURE), "")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
