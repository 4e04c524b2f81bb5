"""The interface of a step of curation: rows in, rows out, one at a time.

A row is what stands in a line of a .jsonl file, a mapping with the columns of ``data/columns.py`` and any others;
columns that a step does not know pass through it. Rows of several answers to one prompt, from which pairs are yet to be
made, hold them in the column ``answers``: a list of texts, or of objects with ``text`` and what is known of each
(``score``, ``spans``, ``model``).

A step is a spec that is opened and then called with the rows::

    with spec.open(bench) as step:
        for made in step(rows):                     # one list of rows for each row that went in, in order
            ...

:class:`Dropped` (or any empty list) drops the row, several rows replace it. It may read ahead, to work in batches. What
it makes depends on the rows, its options and ``bench.seed`` alone, so that a job which was killed goes on where it
stopped and ends with the same bytes. What was opened may have a method ``told(rows)``, which is asked at the end and
answers with facts for the provenance: of all rows that were made (those before an interruption too), in order, and of
its own work. The step says of itself

============  ======================================================================================================
``whole``     False: what a row becomes depends on this row alone. True: on the others too (a selection, a split). Such
              a step is called with rows that can be read several times, and is begun anew after an interruption
``needs``     what must be there: {"answers"}, {"pairs"}, {"reward"}, {"model"}; for ``grainline ls``
``reads``     optional: paths that it reads beside the rows ("test.jsonl"); with other bytes in them it is another job.
              Rewards among its options say theirs themselves
============  ======================================================================================================

The runner (``curate.py``) sees to the rest. Every row that a step is given has an ``id``: its own, or FILE:ROW; several
rows made of one under its id are numbered (``a``, ``a#2``). A row that cannot be used is a DataError, with
``where=f"{identity(row)} chosen"`` (the row, then the column); the runner puts the step before it, and the row it
handed out last where ``where`` is empty.

Each row that a step changed or made carries a line more in its column ``curation``: see :func:`signed`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from grainline.curation._parts import identity

__all__ = ["NESTED", "Bench", "Curation", "Dropped", "Row", "Step", "identity", "signed"]

NESTED = "rewards"
"""What stands in brackets inside a step: ``score:reward=(rules:measure=length)``."""

Row = Mapping[str, Any]
Step = Callable[[Iterable[Row]], Iterator[Sequence[Row]]]


class Dropped(tuple[Row, ...]):
    """What becomes of a row that is left out: no rows, and in a few words why. The job counts rows by this reason."""

    why: str

    def __new__(cls, why: str) -> Dropped:
        found = super().__new__(cls)
        found.why = why
        return found


class Bench(NamedTuple):
    """Where a step works."""

    folder: Path  # what it keeps from one job to the next; all steps of its name share it, so keys say all that matters
    seed: int = 0
    quiet: bool = True  # no progress, no remarks

    def luck(self, row: Row) -> random.Random:
        """Random numbers of this row's own: the same wherever it stands, whatever was drawn for others."""
        said = f"{self.seed}\0{identity(row)}"
        return random.Random(int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big"))


class Curation(Protocol):
    """A spec."""

    whole: bool
    needs: frozenset[str]

    def open(self, bench: Bench) -> AbstractContextManager[Step]: ...


def signed(row: Row, step: str, **facts: Any) -> dict[str, Any]:
    """``row`` with one line more of its history: which step (as text), which model, which score."""
    return {**row, "curation": [*(row.get("curation") or []), {"step": step, **facts}]}
