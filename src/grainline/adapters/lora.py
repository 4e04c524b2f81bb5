r"""Low-rank adaptation, and the refinements that PEFT carries inside it: rsLoRA, DoRA, PiSSA, OLoRA.

Hu et al. 2021, arXiv:2106.09685, Eq. 3:

.. math:: y = W x + s\,B A x, \qquad A \in \mathbb{R}^{r \times \mathrm{in}},\ B \in \mathbb{R}^{\mathrm{out} \times r},
          \qquad s = \alpha / r

``rslora`` (Kalajdzievski 2023, arXiv:2312.03732) takes s = alpha / sqrt(r). ``dora`` (Liu et al. 2024,
arXiv:2402.09353, Eq. 5) learns the length m of each output row beside its direction, W' = m (W + s B A) / ||W + s B A||
row by row, with no gradient through the norm. ``init`` says where A and B start:

============  ==========================================================================================================
default       A uniform (Kaiming, a = sqrt 5), B = 0
gaussian      A normal with standard deviation 1/r, B = 0
orthogonal    rows of A and columns of B from two halves of one orthogonal matrix, so B A = 0; the rank must be even
pissa         the r largest singular directions of W: B = U sqrt(S / s), A = sqrt(S / s) V' (arXiv:2404.02948);
              pissa_niter_4 takes a randomised decomposition with 4 iterations
olora         QR of W: B = Q[:, :r], A = R[:r] (arXiv:2406.01775)
============  ==========================================================================================================

pissa and olora take s B A out of W, so that training starts at the base model: with the adapter off the model is then
*not* the base. Such adapters are shipped as plain LoRA of rank 2 r (grainline.export). Starts that need data (eva,
corda, lora_ga) are refused rather than silently becoming plain LoRA.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from grainline.adapters._parts import check_modules, check_patterns, check_unquantised, find_targets, task_type
from grainline.types import spec

if TYPE_CHECKING:
    from torch import nn

_INITS = ("default", "gaussian", "orthogonal", "pissa", "pissa_niter_<number>", "olora")
_REFUSED = {
    "eva": "it needs activations on data before training",
    "corda": "it needs covariances on data before training",
    "lora_ga": "it needs a gradient on data before training",
    "loftq": "it rounds the base to 4 bits, and the adapter would fit no other base",
}


@spec
class LoRA:
    paper: ClassVar[str] = "arXiv:2106.09685"
    roles: ClassVar[dict[str, str]] = {
        "lora_A": "down",
        "lora_B": "up",
        "lora_embedding_A": "down",
        "lora_embedding_B": "up",
        "lora_magnitude_vector": "magnitude",
    }

    rank: int = Field(16, ge=1)
    """Rows of A: directions of change in each matrix."""
    alpha: float = Field(32.0, gt=0)
    """Scale of the change times the rank: s = alpha / rank (alpha / sqrt(rank) with rslora)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapter's inputs dropped in training, in [0, 1). Above 0 answers cannot share a prompt."""
    targets: str | tuple[str, ...] = "all-linear"
    """Which modules change: all-linear (without the output head), a list of names, or one regular expression that
    matches whole dotted names."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), so that large ranks learn as fast as small ones."""
    dora: bool = False
    """Learn each output row's length apart from its direction; about a third slower."""
    init: str = "default"
    """Start of A and B: default, gaussian, orthogonal, pissa, pissa_niter_<number>, olora."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Biases that train too; off is then no longer the base."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers that change, counted from 0; null = all."""
    modules_to_save: tuple[str, ...] = ()
    """Modules trained whole and stored with the adapter, e.g. lm_head."""
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Other ranks for some modules: name or regular expression -> rank."""
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Other alphas for some modules: name or regular expression -> alpha."""

    @field_validator("init")
    @classmethod
    def _known_init(cls, init: str) -> str:
        if init in _REFUSED:
            raise ValueError(f"{init} is not offered: {_REFUSED[init]}; there are {', '.join(_INITS)}")
        if init not in _INITS and not re.fullmatch(r"pissa_niter_[1-9]\d*", init):
            raise ValueError(f"no such init; there are {', '.join(_INITS)}")
        return init

    @model_validator(mode="after")
    def _possible_together(self) -> LoRA:
        if self.init == "orthogonal" and any(rank % 2 for rank in (self.rank, *self.rank_pattern.values())):
            raise ValueError("init=orthogonal needs an even rank")
        if self._residual_base and self.dora:
            raise ValueError(f"dora with init={self.init} cannot be shipped: no plain LoRA stands for it")
        if self._residual_base and self.rslora and (self.rank_pattern or self.alpha_pattern):
            raise ValueError(f"rslora with a pattern and init={self.init} cannot be shipped: its scales would be wrong")
        return self

    @property
    def layouts(self) -> frozenset[str]:
        # Dropout draws anew for every position: a shared prompt would be one draw where the plain model makes two.
        return frozenset({"packed", "padded"} if self.dropout else {"tree", "packed", "padded"})

    @property
    def changes_base(self) -> bool:
        return self._residual_base or self.bias != "none"

    @property
    def _residual_base(self) -> bool:
        return self.init.startswith(("pissa", "olora"))

    def config(self, model: nn.Module) -> Any:
        """PEFT's configuration for ``model``.

        Raises:
            ModelError: a target, layer, pattern or module to save that the model does not have, or a start that 4 bits
                would round.
        """
        import peft

        if self._residual_base or self.init == "orthogonal":  # PEFT would round the start, or the base without it
            check_unquantised(model, f"init={self.init}")
        check_patterns(model, (*self.rank_pattern, *self.alpha_pattern))
        check_modules(model, self.modules_to_save)
        return peft.LoraConfig(
            task_type=task_type(model),
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type] # PEFT computes with floats, and stores them
            lora_dropout=self.dropout,
            target_modules=find_targets(model, self.targets, self.layers),
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights=True if self.init == "default" else self.init,  # type: ignore[arg-type]
            bias=self.bias,
            modules_to_save=list(self.modules_to_save) or None,
            rank_pattern=dict(self.rank_pattern),
            alpha_pattern=dict(self.alpha_pattern),
        )
