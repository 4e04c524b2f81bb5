"""The order of rows: a pure function of the seed."""

from __future__ import annotations

from itertools import pairwise

from _build import many
from grainline.data.order import Order, Sampler


def stream(
    steps: int, *, rows: int = 10, batch_size: int = 4, sampler: Sampler = "shuffle", seed: int = 0
) -> list[int]:
    order = Order(many(rows, prompts=3), batch_size=batch_size, sampler=sampler, seed=seed)
    return [int(e.record.id) for step in range(steps) for e in order.step(step)]


def test_pure_function_of_the_seed() -> None:
    assert stream(20) == stream(20)
    assert stream(20) != stream(20, seed=1)


def test_a_step_is_the_same_whatever_was_asked_before() -> None:
    """A resumed run begins in the middle; some readers look ahead and come back."""
    examples = many(10)
    order = Order(examples, batch_size=4, seed=3)
    wanted = {step: Order(examples, batch_size=4, seed=3).step(step) for step in (0, 7, 30, 31)}
    for step in (30, 7, 31, 0, 30, 0, 7):
        assert order.step(step) == wanted[step]


def test_each_epoch_is_a_permutation_and_steps_run_across_its_end() -> None:
    seen = stream(15)  # 60 places = 6 epochs of 10; 4 does not divide 10, so step 2 spans two epochs
    epochs = [seen[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6  # each epoch has its own order


def test_sequential() -> None:
    assert stream(5, sampler="sequential") == [*range(10), *range(10)]


def test_by_prompt_keeps_groups_side_by_side() -> None:
    groups = []
    seen = stream(5, sampler="by_prompt")
    for epoch in (seen[:10], seen[10:]):
        assert sorted(epoch) == list(range(10))
        prompts = [row % 3 for row in epoch]  # many(rows, prompts=3) deals prompts in turn
        changes = sum(a != b for a, b in pairwise(prompts))
        assert changes == 2
        groups.append(tuple(dict.fromkeys(prompts)))
        assert all([r for r in epoch if r % 3 == p] == list(range(p, 10, 3)) for p in range(3))
    orders = {tuple(dict.fromkeys(r % 3 for r in stream(3, sampler="by_prompt", seed=s)[:10])) for s in range(9)}
    assert len(orders) > 2  # prompts are shuffled


def test_a_batch_larger_than_the_data() -> None:
    seen = stream(3, rows=4, batch_size=10)  # 30 places over epochs of 4
    assert all(sorted(seen[i : i + 4]) == [0, 1, 2, 3] for i in range(0, 28, 4))


def test_steps_of_epochs() -> None:
    order = Order(many(10), batch_size=4)
    assert order.steps(1) == round(10 / 4)
    assert order.steps(2) == 5
    assert order.steps(0.01) == 1
