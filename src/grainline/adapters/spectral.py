r"""Spectral Adapter: the leading singular vectors of each weight are tuned, additively or by rotation.

Zhang and Pilanci 2024, arXiv:2405.13952 (NeurIPS 2024), in the form of the official code. With W = U diag(S) V', k the
chosen columns (from ``block * rank`` on) and the rest of W untouched:

.. math:: W' = W - U_k S_k V_k^T + (U_k + A_U)\,(S_k + c)\,(V_k + A_V)^T  \quad\text{(additive, A = c = 0 at first)}

.. math:: W' = W - U_k S_k V_k^T + (U_k Q_a)\,(c\,S_k)\,(V_k Q_b)^T, \quad Q = (I - K)(I + K)^{-1},\ K = (P - P^T)/2
          \quad\text{(rotational)}

The additive change has rank 2 rank at LoRA's number of parameters, rank (in + out); the rotational one has 2 rank^2
parameters whatever the size of the weight (and rank more with ``values``), of which rank (rank - 1) count. In the
official code c is trained by its rotational form and by its additive one for images, not by its additive one for text:
that is ``values``' meaning, and its default here is the text code's.

Adapters trained on different blocks of columns add up exactly: S is diagonal, so nothing of one meets the other
(:func:`grainline.adapters.spectral_torch.fuse`).

Ours is the form of the forward: the frozen layer plus a product of two thin matrices, where the official code replaces
the layer. U_k, S_k and V_k are stored with the adapter, because A and P mean nothing without their signs and order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from grainline.adapters._parts import named_targets, task_type, widths
from grainline.errors import ModelError
from grainline.types import spec

if TYPE_CHECKING:
    from torch import nn


@spec
class Spectral:
    paper: ClassVar[str] = "arXiv:2405.13952"
    layouts: ClassVar[frozenset[str]] = frozenset({"tree", "packed", "padded"})
    roles: ClassVar[dict[str, str]] = {
        "spectral_A_V": "down",
        "spectral_A_U": "up",
        "spectral_Q_a": "angle",
        "spectral_Q_b": "angle",
        "spectral_values": "spectrum",
    }
    changes_base: ClassVar[bool] = False

    mode: Literal["additive", "rotational"] = "additive"
    """How singular vectors move: by a free offset, or by a rotation among themselves."""
    rank: int = Field(8, ge=1)
    """Columns of singular vectors that are tuned. The official code takes 8 additively and 128 rotationally."""
    block: int = Field(0, ge=0)
    """Which columns: those from block * rank on; 0 = those of the largest singular values. Adapters on different
    blocks of the same rank can be fused exactly."""
    values: bool = False
    """Train a change of the singular values too: added (additive) or multiplied (rotational)."""
    randomised: bool = False
    """Find the leading columns by power iterations instead of a full decomposition: many times faster for small ranks.
    They hold as much of the weight within a per cent; where the spectrum falls slowly they are not the same columns."""
    targets: str | tuple[str, ...] = "all-linear"
    """Which modules change: all-linear (without the output head), a list of names, or one regular expression that
    matches whole dotted names."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers that change, counted from 0; null = all."""

    def config(self, model: nn.Module) -> Any:
        """PEFT's configuration for ``model``.

        Raises:
            ModelError: a target or layer that the model does not have, or one with fewer singular values than asked.
        """
        from grainline.adapters.spectral_torch import SpectralConfig

        names = named_targets(model, self.targets, self.layers)
        last = (self.block + 1) * self.rank
        for name in names:
            if last > min(found := widths(model, name)):
                raise ModelError(
                    f"{name} has {min(found)} singular values, fewer than {last}.",
                    where="adapter: rank",
                    instead="Lower rank or block.",
                )
        return SpectralConfig(
            task_type=task_type(model),
            target_modules=names,
            mode=self.mode,
            columns=[(self.block * self.rank, last)],
            values=self.values,
            randomised=self.randomised,
        )
