"""The battery that every adapter passes. A new file in ``adapters/`` joins by itself, with its defaults.

The promises are those of ``grainline contract``, tried more strictly. An adapter that does not make one of them says
so: ``changes_base`` excuses from "off = base" and "two adapters", ``exceptions`` holds promise -> reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

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
    "lora:init=lora_ga,rank=4",
    "lora:targets=[q_proj, v_proj],layers=[1]",
    "miss:tile=4",
    "sara:init=svd,share=0.3",
    "ropo:granularity=givens+householder",
    "ropo:granularity=pairs,magnitude=false",
    "papeft:first=60,locations=10,tokens=2,marker=3,width=8",
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


def keeps(promises: list[str], subject: Subject) -> None:
    """Each promise is kept, or refused with a reason."""
    for promise in promises:
        finding = tried(promise, subject)
        assert finding.verdict != "broken", f"{promise}: {finding.said}"


@pytest.mark.parametrize("choice", CHOICES)
def test_widths_that_nothing_divides(choice: str, one_thread: None) -> None:
    """Inputs of 33 and 51, queries of 36 on keys of 12: kept there too, or refused with a reason."""
    sizes = {
        "hidden_size": 33,
        "intermediate_size": 51,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 12,
    }
    torch.manual_seed(0)
    odd = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1, vocab_size=96, initializer_range=0.2)).eval()
    adapter = rooms.parse("adapters", choice.replace("layers=[1]", "layers=[0]"))
    keeps(["fresh is the base", "it changes the model", "merged is the adapted"], Subject(adapter, odd, IDS, 1e-4))


IN_FOUR_BITS = [choice for choice in CHOICES if choice != "none" and "layers" not in choice]


@pytest.mark.parametrize("choice", IN_FOUR_BITS)
def test_four_bit_base(choice: str, four_bit_llama: Any) -> None:
    """Trains beside weights of 4 bits and leaves them alone, or refuses with a reason; never merges."""
    subject = Subject(rooms.parse("adapters", choice), four_bit_llama, IDS, 1e-4)
    keeps(list(PROMISES), subject)
    assert tried("merged is the adapted", subject).verdict == "excused"


class Picture(nn.Module):
    """A convolution, and a matrix that reads any leading shape."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(6, 9, (3, 2), stride=2, padding=1)
        self.matrix = nn.Linear(9, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.matrix(self.convolution(x).movedim(1, -1))


@pytest.mark.parametrize("target", ["convolution", "matrix"])
# peft stands for layers that are not ours: its default, OFT, takes any input with four axes for an image.
@pytest.mark.parametrize("choice", [name for name in rooms.names("adapters") if name not in ("none", "peft")])
def test_convolutions_and_any_leading_shape(choice: str, target: str, one_thread: None) -> None:
    """Changed and merged alike, or refused with a reason."""
    adapter = rooms.parse("adapters", choice)
    if "targets" not in {field.name for field in dataclasses.fields(adapter)}:
        pytest.skip("no targets to name")
    x, adapter = torch.randn(2, 6, 9, 8), dataclasses.replace(adapter, targets=(target,))
    try:
        model = attach(adapter, Picture()).eval()
    except ModelError:
        return
    assert torch.allclose(model(x), Picture()(x), atol=1e-5)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.requires_grad:
                tensor.add_(0.1 * torch.randn(tensor.shape))
        adapted = model(x)
        assert not torch.allclose(adapted, Picture()(x), atol=1e-3)
        with contextlib.suppress(ModelError):  # mixtures cannot be merged
            assert torch.allclose(model.merge_and_unload()(x), adapted, atol=1e-4)
