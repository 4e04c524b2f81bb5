"""The view of a frozen layer: Linear, Conv1D and Conv2d are one matrix each, read and written alike."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from grainline.adapters._frozen import Frozen, added
from grainline.errors import ModelError


def layers() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, dilation=2, padding_mode="reflect")
    return {
        "linear": (nn.Linear(4, 6), torch.randn(2, 5, 4)),
        "without bias": (nn.Linear(4, 6, bias=False), torch.randn(4)),
        "conv1d": (Conv1D(6, 4), torch.randn(2, 5, 4)),
        "conv2d": (convolution, torch.randn(2, 9, 8, 4)),  # as changes see it: channels last
    }


@pytest.mark.parametrize("name", layers())
def test_reading_its_own_weight_gives_its_own_output(name: str) -> None:
    module, x = layers()[name]
    layer = Frozen(module)
    weight = layer.weight_OI
    assert weight.shape == (layer.outputs, layer.fan_in)
    bias = 0 if layer.bias is None else layer.bias
    assert torch.allclose(layer.read(x, weight) + bias, layer(x), atol=1e-6)
    assert layer(x).shape[-1] == 6


@pytest.mark.parametrize("name", layers())
def test_what_is_written_is_used(name: str) -> None:
    module, x = layers()[name]
    layer = Frozen(module)
    before, weight = layer(x), layer.weight_OI.clone()
    layer.write(2 * weight)
    assert torch.equal(layer.weight_OI, 2 * weight)
    bias = 0 if layer.bias is None else layer.bias
    assert torch.allclose(layer(x) - bias, 2 * (before - bias), atol=1e-5)


def test_dtypes() -> None:
    layer = Frozen(nn.Linear(4, 6).bfloat16())
    assert layer.dtype == layer.weight_OI.dtype == layer(torch.randn(4)).dtype == torch.float32
    layer.write(torch.ones(6, 4))
    assert layer.module.weight.dtype == torch.bfloat16
    assert Frozen(nn.Linear(4, 6).double()).dtype == torch.float64


def test_groups_are_refused() -> None:
    with pytest.raises(ModelError, match="2 groups"):
        Frozen(nn.Conv2d(4, 6, 3, groups=2))


def test_added() -> None:
    y, h, up = torch.randn(2, 3, 6), torch.randn(2, 3, 4), torch.randn(6, 4)
    assert torch.allclose(added(y, h, up), y + h @ up.T, atol=1e-6)
    assert torch.allclose(added(y[0, 0], h[0, 0], up), (y + h @ up.T)[0, 0], atol=1e-6)
