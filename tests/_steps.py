"""What tests of steps share: rows through one step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grainline import rooms
from grainline.curation._seam import Bench, Dropped, Row


def made(step: str, rows: Sequence[Row], *, seed: int = 0) -> list[Any]:
    """What becomes of each row: the rows made of it, or the reason why it was dropped."""
    with rooms.parse("curation", step).open(Bench(Path("nowhere"), seed)) as carry:
        return [one.why if isinstance(one, Dropped) else [dict(row) for row in one] for one in carry(rows)]


def left(step: str, rows: Sequence[Row], *, seed: int = 0) -> list[Any]:
    """The ids of what is left."""
    return [row["id"] for one in made(step, rows, seed=seed) if isinstance(one, list) for row in one]


def pair(id: str, chosen: str = "Yes, indeed.", rejected: str = "Not at all.", **more: Any) -> dict[str, Any]:
    return {"id": id, "prompt": f"Why {id}?", "chosen": chosen, "rejected": rejected, **more}
