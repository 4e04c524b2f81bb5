"""The greedy filter against a plain loop, and its two promises; the graph against the exact search."""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from grainline.curation import _neighbours
from grainline.curation._neighbours import Array, Directions, Exact, Graph, Kept, choose, greedy, overlooked
from grainline.errors import DataError, ModelError


def clusters(rows: int, centres: int, dims: int = 24, spread: float = 0.25, seed: int = 0) -> Array:
    """Points around centres: some near, some far."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centres, dims))
    return (middle[rng.integers(centres, size=rows)] + spread * rng.normal(size=(rows, dims))).astype(np.float32)


def plainly(vectors: Array, order: list[int], threshold: float, budget: int) -> list[int]:
    """The dossier's pseudo-code, in float64, one row at a time."""
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    kept = [order[0]]
    for i in order[1:]:
        if len(kept) == budget:
            break
        if max(unit[i] @ unit[kept].T) <= threshold:
            kept.append(i)
    return kept


@pytest.mark.parametrize("budget", [1, 40, 10_000])
@pytest.mark.parametrize("threshold", [0.3, 0.8, 0.95])
def test_the_filter_is_the_plain_loop(threshold: float, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clusters(1500, 200)
    order = np.random.default_rng(1).permutation(1500).tolist()
    expected = plainly(vectors, order, threshold, budget)
    assert [
        one.row
        for one in greedy(Directions(vectors), order, Exact(Directions(vectors)), threshold=threshold, budget=budget)
    ] == expected
    monkeypatch.setattr(_neighbours, "BLOCK", 7)
    monkeypatch.setattr(_neighbours, "AT_ONCE", 24 * 11)
    assert [
        one.row
        for one in greedy(Directions(vectors), order, Exact(Directions(vectors)), threshold=threshold, budget=budget)
    ] == expected


def test_nearest_is_the_largest_similarity_to_a_row_kept_before() -> None:
    vectors = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [1.0, 0.0]], np.float32)
    found = list(greedy(Directions(vectors), [0, 1, 2, 3], Exact(Directions(vectors)), threshold=0.9))
    assert [one.row for one in found] == [0, 1, 2]  # the last is the first again
    assert [one.nearest for one in found] == pytest.approx([-1, 0, 0.5**0.5])


def test_no_two_that_are_kept_are_near_and_none_is_dropped_without_a_better_one_beside_it() -> None:
    vectors, threshold = clusters(800, 90, seed=3), 0.85
    order = np.random.default_rng(4).permutation(800).tolist()
    kept = [one.row for one in greedy(Directions(vectors), order, Exact(Directions(vectors)), threshold=threshold)]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    place = {row: n for n, row in enumerate(order)}
    assert all(place[a] < place[b] for a, b in pairwise(kept))
    assert (alike[np.ix_(kept, kept)] - 2 * np.eye(len(kept))).max() <= threshold + 1e-6
    for row in set(range(800)) - set(kept):
        assert max(alike[row, [k for k in kept if place[k] < place[row]]]) > threshold - 1e-6


def test_a_threshold_of_one_keeps_equal_rows_and_a_lower_one_keeps_the_first() -> None:
    vectors = np.repeat(clusters(20, 20), 3, axis=0)
    assert len(list(greedy(Directions(vectors), range(60), Exact(Directions(vectors)), threshold=1.0))) == 60
    kept = [one.row for one in greedy(Directions(vectors), range(60), Exact(Directions(vectors)), threshold=0.9999)]
    assert kept == list(range(0, 60, 3))


@pytest.mark.skipif(
    importlib.util.find_spec("hnswlib") is None, reason="hnswlib (source only) is not installed: no graph was tried"
)
def test_the_graph_finds_what_the_exact_search_finds() -> None:
    vectors = clusters(4000, 500, dims=32, seed=5)
    order, threshold = list(range(4000)), 0.9
    exact = [one.row for one in greedy(Directions(vectors), order, Exact(Directions(vectors)), threshold=threshold)]
    graph = list(greedy(Directions(vectors), order, Graph(32, 16), threshold=threshold))
    assert 400 < len(exact) < 4000
    assert [one.row for one in graph] == exact
    assert graph == list(greedy(Directions(vectors), order, Graph(32), threshold=threshold))  # the same each time
    assert overlooked(Directions(vectors), graph, threshold) == (len(graph), 0)


def test_what_a_graph_overlooked_is_counted() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [-1.0, 0.0]], np.float32)
    kept = [Kept(row, 0.0) for row in range(4)]  # as if the second and third were not near
    assert overlooked(Directions(vectors), kept, threshold=0.9) == (4, 1)
    assert overlooked(Directions(vectors), kept, threshold=0.9, sample=2) == (2, 1)


def test_what_is_chosen_goes_by_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    assert choose(50_000, 576, 6_000) == "exact"
    assert choose(3_000_000, 1024, None) == "hnsw"
    assert choose(2_000_000, 1024, 1_000) == "exact"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose(3_000_000, 1024, None) == "exact"
    with pytest.raises(ModelError, match=r"hnswlib is not installed.*grainline\[neighbours\]"):
        Graph(8)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_vector_without_direction_is_refused(bad: float) -> None:
    vectors = np.array([[1.0, 0.0], [bad, 0.0]], np.float32)
    with pytest.raises(DataError, match="row 2: its vector has no direction"):
        list(greedy(Directions(vectors), [0, 1], Exact(Directions(vectors)), threshold=0.9))


def test_vectors_may_stay_on_the_disk_in_half_precision(tmp_path: Path) -> None:
    vectors = clusters(300, 60)
    file = np.memmap(tmp_path / "v", np.float16, "w+", shape=vectors.shape)
    file[:] = vectors
    found = [one.row for one in greedy(Directions(file), range(300), Exact(Directions(file)), threshold=0.8)]
    assert found == plainly(vectors.astype(np.float16), list(range(300)), 0.8, 300)


def test_directions_without_what_all_have_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_neighbours, "AT_ONCE", 24 * 7)
    vectors = clusters(300, 60) + 40
    left = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    expected = left / np.linalg.norm(left, axis=1, keepdims=True)
    centred = Directions(vectors, centred=True)
    np.testing.assert_allclose(centred[np.arange(300)], expected, atol=1e-4)
    plain, apart = (one.similarities(np.random.default_rng(0)) for one in (Directions(vectors), centred))
    assert np.median(plain) > 0.99
    assert abs(np.median(apart)) < 0.1
    assert len(plain) < 2000  # no row stands beside itself
