"""Who is too near to whom: the greedy filter of Deita over vectors that need not fit in memory, exact or approximate.

Rows come in an order, best first. A row is kept if its cosine similarity to each row kept before it is at most a
threshold. ``exact`` compares with all of them; ``hnsw`` asks a graph (Malkov and Yashunin 2016, arXiv:1603.09320, by
hnswlib) for the nearest, in time that grows with their logarithm, and may overlook it: :func:`overlooked` says how
often, on a sample.

The first of two equal rows is kept. A threshold of 1 keeps all: cosines that rounding lifts above 1 are 1.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from grainline.errors import DataError, ModelError

Array = np.ndarray[Any, Any]

BLOCK = 1024  # rows that are compared at once
AT_ONCE = 2**24  # numbers of kept rows that are read from the file at once: 64 MiB in float32
EXACT = 3e12  # multiplications up to which exact is chosen: three minutes on two cores


class Kept(NamedTuple):
    """A row that stays."""

    row: int  # of ``vectors``
    nearest: float  # the largest cosine similarity to a row kept before it; -1 for the first


class Near(Protocol):
    """Rows that are kept, and who is near to them."""

    def add(self, rows: Sequence[int], unit_ND: Array) -> None:
        """These rows are kept from now on; ``unit_ND`` are their vectors, of length 1."""

    def nearest(self, unit_BD: Array) -> Array:
        """(B,) the largest cosine similarity to a row that is kept; -1 where there is none."""


class Directions:
    """Rows of a file of vectors as unit vectors; ``centred``, of what is left without the mean of all rows."""

    def __init__(self, vectors_ND: Array, *, centred: bool = False) -> None:
        self.vectors_ND, self.shape = vectors_ND, vectors_ND.shape
        self.origin_D = np.zeros(vectors_ND.shape[1], np.float32)
        if centred:
            total_D = sum(block_BD.sum(0, dtype=np.float64) for block_BD in self._blocks())
            self.origin_D = (total_D / len(vectors_ND)).astype(np.float32)

    def __getitem__(self, rows: Any) -> Array:
        """(B, D) float32.

        Raises:
            DataError: a vector has no direction: it is zero, or not finite.
        """
        found_BD = np.asarray(self.vectors_ND[rows], np.float32) - self.origin_D
        length_B1 = np.linalg.norm(found_BD, axis=1, keepdims=True)
        bad = np.flatnonzero(~(np.isfinite(length_B1) & (length_B1 > 0)))
        if len(bad):
            row = int(np.asarray(rows)[bad[0]]) + 1
            raise DataError("its vector has no direction: zero, or not finite.", where=f"row {row}")
        return found_BD / length_B1

    def similarities(self, luck: np.random.Generator, pairs: int = 2000) -> Array:
        """The cosine similarities of some pairs of rows, drawn."""
        one, other = luck.integers(len(self.vectors_ND), size=(2, pairs))
        apart = one != other
        return (self[one[apart]] * self[other[apart]]).sum(1)

    def _blocks(self) -> Iterator[Array]:
        step = max(1, AT_ONCE // self.shape[1])
        return (np.asarray(self.vectors_ND[n : n + step]) for n in range(0, len(self.vectors_ND), step))


class Exact:
    """Compares with every kept row, read again."""

    def __init__(self, directions: Directions) -> None:
        self.directions, self.rows = directions, np.empty(0, np.int64)

    def add(self, rows: Sequence[int], unit_ND: Array) -> None:
        self.rows = np.append(self.rows, np.asarray(rows, np.int64))

    def nearest(self, unit_BD: Array) -> Array:
        best_B = np.full(len(unit_BD), -1.0, np.float32)
        step = max(1, AT_ONCE // self.directions.shape[1])
        for start in range(0, len(self.rows), step):
            kept_KD = self.directions[self.rows[start : start + step]]
            np.maximum(best_B, (unit_BD @ kept_KD.T).max(1), out=best_B)
        return best_B


class Graph:
    """Asks a navigable small-world graph of the kept rows; one thread, so that it is the same each time."""

    def __init__(self, dims: int, room: int = 4096) -> None:
        if importlib.util.find_spec("hnswlib") is None:
            raise ModelError(
                "hnswlib is not installed.", where="search=hnsw", instead="pip install grainline[neighbours]."
            )
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=dims)
        self.index.init_index(max_elements=room, M=32, ef_construction=200, random_seed=0)
        self.index.set_ef(100)
        self.index.set_num_threads(1)

    def add(self, rows: Sequence[int], unit_ND: Array) -> None:
        if (wanted := self.index.element_count + len(rows)) > self.index.max_elements:
            self.index.resize_index(max(wanted, 2 * self.index.max_elements))
        if len(rows):
            self.index.add_items(unit_ND, rows, num_threads=1)

    def nearest(self, unit_BD: Array) -> Array:
        if not self.index.element_count:
            return np.full(len(unit_BD), -1.0, np.float32)
        _, distance_B1 = self.index.knn_query(unit_BD, k=1, num_threads=1)
        return 1 - distance_B1[:, 0]


def greedy(
    directions: Directions, order: Sequence[int] | Array, near: Near, *, threshold: float, budget: int | None = None
) -> Iterator[Kept]:
    """Those rows of ``order`` that are kept, in order, until there are ``budget`` of them."""
    left = len(order) if budget is None else budget
    for start in range(0, len(order), BLOCK):
        rows = np.asarray(order[start : start + BLOCK])
        unit_BD = directions[rows]
        nearest_B = np.minimum(near.nearest(unit_BD), 1.0)
        alike_BB = np.minimum(unit_BD @ unit_BD.T, 1.0)
        new: list[int] = []
        for i in np.flatnonzero(nearest_B <= threshold):
            closest = max([nearest_B[i], *alike_BB[i, new]])
            if closest <= threshold and len(new) < left:
                new.append(int(i))
                yield Kept(int(rows[i]), float(closest))
        near.add(rows[new].tolist(), unit_BD[new])
        left -= len(new)
        if left <= 0:
            return


def choose(rows: int, dims: int, budget: int | None) -> str:
    """``exact`` where that takes minutes at most, else ``hnsw`` (``exact`` where hnswlib is not installed)."""
    few = rows * min(rows, rows if budget is None else budget) * dims <= EXACT
    return "exact" if few or importlib.util.find_spec("hnswlib") is None else "hnsw"


def overlooked(directions: Directions, kept: Sequence[Kept], threshold: float, sample: int = 1000) -> tuple[int, int]:
    """(looked at, too near): how many of some kept rows are nearer than ``threshold`` to one kept before, exactly."""
    places = range(0, len(kept), max(1, len(kept) // sample))
    rows = np.array([one.row for one in kept], np.int64)
    exact, wrong = Exact(directions), 0
    for place in places:
        exact.rows = rows[:place]
        wrong += bool(exact.nearest(directions[rows[place : place + 1]])[0] > threshold)
    return len(places), wrong
