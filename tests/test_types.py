"""The currency: specs that validate themselves, batches that move whole."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pydantic
import pytest
import torch
from pydantic import Field

import _build
from grainline import rooms
from grainline.data.collate import collate
from grainline.types import Answer, Batch, Pairs, Record, Rows, Tree, spec


@spec
class Example:
    needs: ClassVar[frozenset[str]] = frozenset()

    beta: float = Field(0.1, gt=0)
    """Nats."""
    words: tuple[str, ...] = ()
    """Some words."""


def test_a_spec_is_a_frozen_value() -> None:
    value = Example(beta=0.2)
    assert value == Example(beta=0.2) != Example()
    assert hash(value) == hash(Example(beta=0.2))
    assert repr(value) == "Example(beta=0.2, words=())"
    assert dataclasses.replace(value, words=["a", "b"]).words == ("a", "b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.beta = 0.3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"beta": 0}, "greater than 0"), ({"betta": 1}, "betta"), ({"beta": "loud"}, "valid number"),
     ({"needs": frozenset()}, "needs")],
    ids=str,
)  # fmt: skip
def test_a_spec_validates_itself(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        Example(**arguments)


def test_a_spec_takes_keywords_alone() -> None:
    with pytest.raises(TypeError, match="positional"):
        Example(0.2)  # type: ignore[misc]


def test_text_under_a_field_is_its_documentation() -> None:
    fields = rooms.fields(Example)
    assert {name: field["description"] for name, field in fields.items()} == {"beta": "Nats.", "words": "Some words."}
    assert fields["beta"]["default"] == 0.1


def test_every_option_of_every_method_is_documented() -> None:
    for room in rooms.ROOMS:
        for name in rooms.names(room):
            for field, schema in rooms.fields(rooms.load(room, name)).items():
                assert len(schema["description"]) > 10, f"{room}/{name}.{field}"


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in value for tensor in tensors(part)] if isinstance(value, (tuple, list)) else []


@pytest.mark.parametrize("rows", ["pairs", "labels"])
def test_a_batch_moves_whole(rows: Any) -> None:
    batch = collate(_build.questions(), rows=rows)
    assert type(batch.facts) is (Pairs if rows == "pairs" else Rows)
    moved = batch.to("meta")
    assert type(moved) is Batch
    assert type(moved.facts) is type(batch.facts)
    assert {tensor.device.type for tensor in tensors(batch)} == {"cpu"}
    assert {tensor.device.type for tensor in tensors(moved)} == {"meta"}
    assert len(tensors(moved)) == len(tensors(batch)) >= 8
    assert (moved.trees, moved.keys, moved.facts.ids) == (batch.trees, batch.keys, batch.facts.ids)
    again = batch.to("cpu")
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(tensors(again), tensors(batch), strict=True))


def test_a_tree_ends_after_its_branches() -> None:
    assert Tree(start=5, prompt=3, branches=(2, 4)).stop == 14


def test_a_record_without_a_label_is_a_pair() -> None:
    answers = (Answer("a"), Answer("b"))
    assert Record("1", "x", answers).is_pair
    assert not Record("1", "x", answers[:1], label=False).is_pair
