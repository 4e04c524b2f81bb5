"""The battery that every adapter passes. A new file in ``adapters/`` joins by itself, with its defaults.

The promises are those of ``grainline contract``, tried more strictly. An adapter that does not make one of them says so:
``changes_base`` excuses from "off = base" and "two adapters", ``exceptions`` holds promise -> reason.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from grainline import rooms
from grainline.adapters._seam import attach, tagged
from grainline.contract import PROMISES, Subject, tried
from grainline.errors import ModelError

VARIANTS = [
    "lora:dora=true",
    "lora:rslora=true,rank=4",
    "lora:init=orthogonal",
    "lora:init=pissa,rank=4",
    "lora:init=olora,rank=4",
    "lora:targets=[q_proj, v_proj],layers=[1]",
    "miss:tile=4",
    "lora:modules_to_save=[input_layernorm],rank_pattern.q_proj=2",
]
CHOICES = [*rooms.names("adapters"), *VARIANTS]
IDS = torch.tensor([[1, 5, 9, 33, 70, 12, 8, 3], [1, 7, 7, 60, 2, 90, 41, 11]])


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("choice", CHOICES)
def test_promise(choice: str, promise: str, tiny_llama: Any) -> None:
    adapter = rooms.parse("adapters", choice)
    finding = tried(promise, Subject(adapter, tiny_llama, IDS, tolerance=1e-4))
    if finding.verdict == "excused":
        pytest.skip(f"excused: {finding.said}")
    assert finding.verdict == "kept", finding.said


@pytest.mark.parametrize("choice", CHOICES)
def test_text_round_trip(choice: str) -> None:
    adapter = rooms.parse("adapters", choice)
    assert rooms.parse("adapters", rooms.text(adapter)) == adapter


@pytest.mark.parametrize("choice", CHOICES)
def test_says_what_it_is(choice: str) -> None:
    adapter = rooms.parse("adapters", choice)
    assert adapter.layouts
    assert adapter.layouts <= {"tree", "packed", "padded"}
    assert isinstance(adapter.changes_base, bool)
    assert set(getattr(adapter, "exceptions", {})) <= set(PROMISES)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_tensor_has_a_role_of_the_adapter(choice: str, tiny_llama: Any) -> None:
    adapter = rooms.parse("adapters", choice)
    saved = set(getattr(adapter, "modules_to_save", ()))
    for tag in tagged(adapter, attach(adapter, tiny_llama)):
        whole = choice == "none" or saved & set(tag.name.split("."))
        assert tag.role in ({"weight"} if whole else set(adapter.roles.values())), tag.name


@pytest.mark.parametrize("choice", CHOICES)
def test_unknown_target_lists_what_exists(choice: str, tiny_llama: Any) -> None:
    adapter = rooms.parse("adapters", choice)
    if "targets" not in {field.name for field in dataclasses.fields(adapter)}:
        pytest.skip("no targets to name")
    with pytest.raises(ModelError, match=r"Did you mean 'q_proj'\?.*down_proj"):
        dataclasses.replace(adapter, targets=("q_prj",)).config(tiny_llama)
