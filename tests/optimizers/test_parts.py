"""Groups by role: their order, their decay, their rates; tensors that step together; several rules in one."""

from __future__ import annotations

import pytest
import torch

from grainline.errors import ModelError, SpecError
from grainline.optimizers import _parts_torch
from grainline.optimizers._parts import apart, by_role
from grainline.optimizers._parts_torch import ByParts, Combined
from grainline.optimizers.adamw import AdamW
from grainline.types import Tagged


def tag(name: str, shape: tuple[int, ...], role: str) -> Tagged:
    return Tagged(name, torch.nn.Parameter(torch.zeros(shape)), role)


def test_groups() -> None:
    tags = [tag("b", (2, 2), "up"), tag("bias", (2,), "up"), tag("c", (2, 2), "down"), tag("a", (2, 2), "up")]
    groups = by_role(tags, AdamW(lr=0.1, lr_of={"down": 0.7}, lr_scale={"up": 3.0}, weight_decay=0.5))
    assert [([name for name, _ in g["params"]], g["role"], g["lr"], g["weight_decay"]) for g in groups] == [
        (["c"], "down", 0.7, 0.5),
        (["a", "b"], "up", pytest.approx(0.3), 0.5),
        (["bias"], "up", pytest.approx(0.3), 0.0),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr_scale": {"magnitude": 2.0}}, r"^lr_scale\.magnitude: no parameter has the role 'magnitude'"),
        ({"lr_of": {"uup": 2.0}}, r"^lr\.uup: no parameter has the role 'uup'\. Did you mean 'up'\?"),
        ({"lr_of": {"up": 2.0}, "lr_scale": {"up": 1.0}}, r"'up' has both .* Leave one: lr\.up or lr_scale\.up\.$"),
    ],
)
def test_rates_that_are_refused(options: dict[str, dict[str, float]], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        by_role([tag("a", (2, 2), "up")], AdamW(**options))


def test_apart() -> None:
    groups = by_role([tag("a", (2, 2), "up"), tag("b", (2, 2, 2), "up"), tag("c", (2,), "down")], AdamW())
    flat, rest = apart(groups, lambda role, tensor: tensor.ndim == 2)
    assert [[name for name, _ in group["params"]] for group in flat] == [["a"]]
    assert [(group["role"], [name for name, _ in group["params"]]) for group in rest] == [
        ("down", ["c"]),
        ("up", ["b"]),
    ]


# ------------------------------------------------------------------------------------------------------- with torch


def test_tensors_of_a_shape_step_together_and_late_ones_count_their_own_steps() -> None:
    seen = []
    tags = [tag("a", (2, 2), "up"), tag("b", (3, 2), "up"), tag("c", (2, 2), "up")]
    groups = by_role(tags, AdamW())
    made = ByParts(groups, {}, keeps=("mean",), rule=lambda part, _: seen.append((len(part.params), part.step)))
    for tagged in tags[:2]:
        tagged.tensor.grad = torch.ones_like(tagged.tensor)
    made.step()
    assert seen == [(1, 1), (1, 1)]
    tags[2].tensor.grad = torch.ones(2, 2)
    made.step()
    assert sorted(seen[2:]) == [(1, 1), (1, 2), (1, 2)]
    tags[0].tensor.grad = torch.ones(2, 2).to_sparse()
    with pytest.raises(ModelError, match="sparse"):
        made.step()


def test_large_tensors_are_taken_in_pieces_of_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_parts_torch.AT_ONCE, "cpu", 8)
    tags = [tag(f"{i}", (2, 2), "up") for i in range(5)]
    for tagged in tags:
        tagged.tensor.grad = torch.ones(2, 2)
    seen: list[int] = []
    ByParts(by_role(tags, AdamW()), {}, keeps=(), rule=lambda part, _: seen.append(len(part.params))).step()
    assert seen == [2, 2, 1]


def test_factors_are_not_rounded_to_half_precision() -> None:
    """torch's in-place foreach multiplication takes 0.999 for 1 in bfloat16."""
    tensors = [torch.ones(3, dtype=torch.bfloat16) * 100 for _ in range(2)]
    _parts_torch.scale_(tensors, 0.99)
    assert [t.tolist() for t in tensors] == [(torch.ones(3, dtype=torch.bfloat16) * 100 * 0.99).tolist()] * 2
    _parts_torch.scale_(tensors, [1.0, 0.5])
    assert tensors[1].tolist() == [49.5] * 3


def test_a_combined_optimizer_shares_groups_and_state_with_its_members() -> None:
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    made = Combined([torch.optim.SGD([a], lr=0.1, momentum=0.9), torch.optim.AdamW([b], lr=0.1)])
    made.param_groups[0]["lr"] = 1.0
    for p in (a, b):
        p.grad = torch.ones(2)
    assert made.step(lambda: 7.0) == 7.0
    assert (a.tolist(), set(map(id, made.state))) == ([0.0, 0.0], {id(a), id(b)})
    made.load_state_dict(made.state_dict())
    made.param_groups[0]["lr"] = 0.0
    made.step()
    assert a.tolist() == [0.0, 0.0]
    assert made.members[0].state is made.members[1].state is made.state
