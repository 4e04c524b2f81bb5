"""Math-Shepherd (peiyi9979): a solution a row, each step marked by whether the right answer can be reached from it.

Native columns: ``input``, the problem and the solution in one text with the tag "ки" after each step; ``label``, the
same text with "+" or "-" in the tag's place; ``task``, GSM8K or MATH. A row becomes a stepwise row (``prompt``,
``completions``, ``labels``) as TRL's conversion makes it, but under a user turn: the problem ends before "Step 1:", or
else after its only question mark.

The shape is confirmed from the data set's card and from TRL's conversion, which also tells of rows with a tag inside
the problem. It mends a dozen of them by how they begin; here they are told as rows that cannot be used, and
``skip_bad_rows=true`` leaves them out. The card's first version, which kept the tag beside a "?" or a sign, is not
read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from grainline.data import files
from grainline.data.formats import _seam
from grainline.errors import DataError

SIGNATURE = frozenset({"input", "label", "task"})

TAG = "ки"
_SIGNS = {"+": True, "-": False}


def rows(rows: Iterable[files.Row]) -> Iterator[files.Row]:
    """One stepwise row for each solution."""
    return _seam.each(rows, _solution)


def _solution(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    *steps, rest = _seam.text(row, "input", where=where).split(TAG)
    if not steps or rest.strip():
        raise DataError(f"the text does not end with the tag {TAG!r}.", where=f"{where} input")
    labels = _signs(steps, _seam.text(row, "label", where=where), where=f"{where} label")
    prompt, first = _parted(steps[0], where=f"{where} input")
    return {
        "prompt": _seam.asked(prompt.strip()),
        "completions": [step.strip() for step in (first, *steps[1:])],
        "labels": labels,
    }


def _signs(steps: Sequence[str], label: str, *, where: str) -> list[bool]:
    """The sign that stands in ``label`` after each step."""
    found, at = [], 0
    for number, step in enumerate(steps, start=1):
        end = at + len(step)
        sign = label[end : end + 1]
        if label[at:end] != step or sign not in _SIGNS:
            raise DataError(
                f"it is not the input with + or - in place of each {TAG!r}: they part ways at tag {number}.",
                where=where,
            )
        found.append(_SIGNS[sign])
        at = end + 1
    return found


def _parted(beginning: str, *, where: str) -> tuple[str, str]:
    """The problem and the first step, both before the first tag."""
    at = [found.start() for found in re.finditer("step 1:", beginning, re.IGNORECASE)][-1:]
    at = at or ([beginning.index("?") + 1] if beginning.count("?") == 1 else [])
    if not at or not beginning[: at[0]].strip() or not beginning[at[0] :].strip():
        raise DataError("it does not say where the problem ends: no 'Step 1:' before the first tag.", where=where)
    return beginning[: at[0]], beginning[at[0] :]
