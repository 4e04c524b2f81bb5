r"""SODA: the spectrum of each weight is shifted, and its basis turned by a Kronecker product of small rotations.

Zhang et al. 2024, arXiv:2405.21050 (WACV 2025). In the form of the official code, with W = U diag(S) V':

.. math:: W' = U\,\mathrm{diag}(\mathrm{relu}(S + \delta))\,V^T R^T, \qquad R = Q_1 \otimes Q_2 \otimes Q_3

``form=qr`` stands in the paper but not in its code, and is our reading of it: with W = L Q (L lower triangular, Q's
rows orthonormal, the diagonal of L not negative) the "spectrum" is that diagonal,

.. math:: W' = (L + \mathrm{diag}(\delta))\,Q\,R^T

Each Q_i is a Cayley transform, so that any optimizer keeps it orthogonal; the official code trains Q_i itself with an
Adam on the Stiefel manifold. The sizes of Q_i are the three factors of the inputs' number whose squares sum to least
(4096 = 16 x 16 x 16); the code lists those of one image model. min(in, out) + a^2 + b^2 + c^2 parameters a layer.

Two departures: delta starts at 0, where the code's 0.001 makes the fresh model another one; and the frozen layer is
kept, where the code deletes it, so that the adapter can be switched off. The svd form stores U, S and V with the
adapter, about one and a half times the weights' own size; with ``rank`` it shifts the leading values alone, which is
ours too, and far smaller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from grainline.adapters._parts import named_targets, task_type
from grainline.types import spec

if TYPE_CHECKING:
    from torch import nn


@spec
class SODA:
    paper: ClassVar[str] = "arXiv:2405.21050"
    layouts: ClassVar[frozenset[str]] = frozenset({"tree", "packed", "padded"})
    roles: ClassVar[dict[str, str]] = {"soda_rotation": "angle", "soda_delta": "spectrum"}
    changes_base: ClassVar[bool] = False

    form: Literal["svd", "qr"] = "svd"
    """What the spectrum is: singular values, or (our reading) the diagonal of a triangular factor."""
    rank: Annotated[int, Field(ge=1)] | None = None
    """Of the svd form: singular values that may shift, the largest ones; null = all. Ours: the paper shifts all."""
    targets: str | tuple[str, ...] = "all-linear"
    """Which modules change: all-linear (without the output head), a list of names, or one regular expression that
    matches whole dotted names."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers that change, counted from 0; null = all."""

    @model_validator(mode="after")
    def _possible_together(self) -> SODA:
        if self.form == "qr" and self.rank is not None:
            raise ValueError("rank goes with form=svd: the diagonal of a triangular factor is in no order")
        return self

    def config(self, model: nn.Module) -> Any:
        """PEFT's configuration for ``model``.

        Raises:
            ModelError: a target or layer that the model does not have.
        """
        from grainline.adapters.soda_torch import SodaConfig

        return SodaConfig(
            task_type=task_type(model),
            target_modules=named_targets(model, self.targets, self.layers),
            form=self.form,
            rank=self.rank,
        )
