"""Several sources in one: each row as often as its source's weight says."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from grainline.data.columns import same_kind
from grainline.errors import DataError
from grainline.types import Record


def mix(sources: Sequence[tuple[Sequence[Record], float]], *, seed: int) -> list[Record]:
    """All sources one after another, each drawn ``weight`` times.

    The whole part of a weight repeats every row; the rest draws that share of the rows at random, without replacement
    and in the file's order, the same rows for the same seed. An id that comes again is numbered: ``a``, ``a#2``...
    """
    drawn: list[Record] = []
    for number, (records, weight) in enumerate(sources):
        if not (math.isfinite(weight) and weight > 0):
            raise DataError(f"weight {weight!r} is not above zero.", where=f"source {number + 1}")
        whole, further = draw(len(records), weight, seed=seed, number=number)
        drawn.extend(record for _ in range(whole) for record in records)
        drawn.extend(records[n] for n in further)
    if not drawn:
        raise DataError("the mixture has no rows.", instead="Raise a weight or name more data.")
    same_kind(drawn)
    return _numbered(drawn)


def draw(rows: int, weight: float, *, seed: int, number: int) -> tuple[int, list[int]]:
    """How often all of a source's ``rows`` are drawn, and which of them once more; ``number`` is the source's place."""
    whole, share = divmod(weight, 1.0)
    # A text seed gives each source its own stream, the same on every machine.
    chance = random.Random(f"{seed}:{number}")
    return int(whole), sorted(chance.sample(range(rows), math.floor(share * rows + 0.5)))


def _numbered(records: Sequence[Record]) -> list[Record]:
    """The same records with ids that are unique."""
    taken = {record.id for record in records}
    copies: dict[str, int] = {}
    result = []
    for record in records:
        copy = copies.get(record.id, 0) + 1
        while copy > 1 and f"{record.id}#{copy}" in taken:
            copy += 1
        copies[record.id] = copy
        name = record.id if copy == 1 else f"{record.id}#{copy}"
        taken.add(name)
        result.append(record._replace(id=name))
    return result
