"""The frozen layer as an adapter sees it: one matrix, features on the last axis, whatever kind of module it is.

Linear, GPT-2's Conv1D (whose weight is transposed), Conv2d (whose kernels are flattened, and whose channels come to the
last axis), quantised layers (whose weight is dequantised for reading) and tables of tokens (whose inputs are ids, and
whose matrix is the table transposed). Letters in shapes: ``O`` outputs, ``I``
fan-in: inputs, of a convolution channels times kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from grainline.errors import ModelError


class Frozen:
    """A view of a module; owns nothing, and is made anew wherever it is needed.

    Raises:
        ModelError: a module whose weight is no matrix to us.
    """

    def __init__(self, module: Any, dtype: torch.dtype | None = None) -> None:
        while hasattr(module, "base_layer"):
            module = module.base_layer
        self.module = module
        self.convolution = module if isinstance(module, nn.Conv2d) else None
        self.transposed = isinstance(module, (Conv1D, nn.Embedding))
        self.outputs, self.inputs, self.fan_in = _shape(module)
        self.device: torch.device = module.weight.device
        self._outside: torch.dtype = module.weight.dtype  # what the module takes and gives
        self.dtype = dtype or (torch.float64 if self._outside == torch.float64 else torch.float32)

    @property
    def like(self) -> dict[str, Any]:
        """Device and dtype for new tensors of a change."""
        return {"device": self.device, "dtype": self.dtype}

    @property
    def bias(self) -> Tensor | None:
        return None if self.module.bias is None else self.module.bias.to(self.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """The frozen layer's own output, bias included."""
        if not self._is_quantised:
            x = x.to(self._outside)
        if self.convolution is None:
            return self.module(x).to(self.dtype)
        return self.convolution(x.movedim(-1, 1)).movedim(1, -1).to(self.dtype)

    def read(self, x: Tensor, rows_KI: Tensor) -> Tensor:
        """``rows_KI`` in the place of the weight: (..., K), no bias. A convolution's rows are kernels, flattened."""
        if self.convolution is None:
            return nn.functional.linear(x, rows_KI)
        kernels = rows_KI.unflatten(1, (self.inputs, *self.convolution.kernel_size))
        return self.convolution._conv_forward(x.movedim(-1, 1), kernels, None).movedim(1, -1)

    @property
    def weight_OI(self) -> Tensor:
        """The weight as a matrix in the change's dtype, dequantised; each call computes it anew."""
        from peft.utils.quantization_utils import resolve_quantization_backend

        backend = resolve_quantization_backend(self.module) if self._is_quantised else None
        weight = self.module.weight.data if backend is None else backend.get_base_weight(self.module)
        return (weight.T if self.transposed else weight.flatten(1)).to(self.dtype)

    def write(self, weight_OI: Tensor) -> None:
        """Put a matrix in the place of the weight.

        Raises:
            ModelError: the weight is quantised, and would be rounded to a few bits.
        """
        if self._is_quantised:
            raise ModelError(
                "the base is quantised: merging would round the change away.",
                where="merge",
                instead="Load the base unquantised, attach the saved adapter, and merge that.",
            )
        old = self.module.weight
        new = weight_OI.T if self.transposed else weight_OI.reshape(old.shape)
        old.data = new.to(self._outside).contiguous()

    @property
    def _is_quantised(self) -> bool:
        return not self._outside.is_floating_point


def _shape(module: Any) -> tuple[int, int, int]:
    """Outputs, inputs, and inputs with a convolution's kernel."""
    if isinstance(module, Conv1D):
        inputs, outputs = module.weight.shape
        return outputs, inputs, inputs
    if isinstance(module, nn.Embedding):
        return module.embedding_dim, module.num_embeddings, module.num_embeddings
    if not isinstance(module, nn.Conv2d):
        return module.out_features, module.in_features, module.in_features
    if module.groups > 1:
        raise ModelError(
            f"a convolution in {module.groups} groups is no single matrix.",
            where="adapter: targets",
            instead="Name modules without groups.",
        )
    return module.out_channels, module.in_channels, module.in_channels * module.kernel_size[0] * module.kernel_size[1]


def added(y: Tensor, h: Tensor, up_OK: Tensor) -> Tensor:
    """y + h up', in one kernel: (..., O) and (..., K)."""
    return torch.addmm(y.reshape(-1, y.shape[-1]), h.reshape(-1, h.shape[-1]), up_OK.T).view(y.shape)
