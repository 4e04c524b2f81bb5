r"""Low-rank adaptation, and the refinements that PEFT carries inside it: rsLoRA, DoRA, PiSSA, OLoRA, LoRA-GA.

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
lora_ga       of the gradient G = U S V' of W on rows of the data: A = c V'[:r], B = c U[:, r:2r],
              c = outputs^(1/4) / sqrt(gamma) (arXiv:2407.05000)
============  ==========================================================================================================

pissa, olora and lora_ga take s B A out of W, so that training starts at the base model: with the adapter off the
model is then *not* the base. Such adapters are shipped as plain LoRA of rank 2 r (grainline.export). eva and corda,
which need data too, are refused rather than silently becoming plain LoRA.

lora_ga's factors and scale are those of the authors' code (github.com/Outsider565/LoRA-GA, direction ArB2r, scale
stable). One step of SGD then moves the weight along the best rank-2r approximation of G:
-lr s^2 (B B' G + G A' A) = -lr (s c)^2 G_2r. PEFT 0.21 takes the same directions, but leaves A without c and gives B
the singular values of G, so that its start shrinks with the loss. Which loss is ours to choose: the run's own
objective at the base, on the rows of its first steps (grainline.first_look) [inferred].
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from grainline.adapters._parts import check_modules, check_patterns, check_unquantised, find_targets, task_type
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from grainline.adapters._seam import Losses

_INITS = ("default", "gaussian", "orthogonal", "pissa", "pissa_niter_<number>", "olora", "lora_ga")
_REFUSED = {
    "eva": "it needs activations on data before training",
    "corda": "it needs covariances on data before training",
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
    """Start of A and B: default, gaussian, orthogonal, pissa, pissa_niter_<number>, olora, lora_ga."""
    gamma: float = Field(16.0, gt=0)
    """Of init=lora_ga: A and B start with norms that fall as 1 / sqrt(gamma)."""
    start_rows: int = Field(32, ge=1)
    """Of init=lora_ga: rows whose gradient is taken before training, rounded up to whole steps, at most the run's."""
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
        if self.init != "lora_ga" and (self.gamma, self.start_rows) != (16.0, 32):
            raise ValueError("gamma and start_rows belong to init=lora_ga")
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
    def looks(self) -> int:
        """Rows that the start wants to see."""
        return self.start_rows if self.init == "lora_ga" else 0

    @property
    def _residual_base(self) -> bool:
        return self.init.startswith(("pissa", "olora", "lora_ga"))

    def studied(self, model: nn.Module, losses: Losses) -> None:
        """Find LoRA-GA's A and B.

        Raises:
            ModelError: a layer is not linear or too small for the rank, or no gradient reaches it.
        """
        from grainline.adapters import lora_torch

        lora_torch.study(model, losses, self.gamma)

    def resumed(self, model: nn.Module, kept: dict[str, Tensor]) -> None:
        """Part the base by the start that was ``kept`` when the run began, should this process have found another."""
        from grainline.adapters import lora_torch

        if self._residual_base:
            lora_torch.restart(model, kept)

    def started(self, model: nn.Module) -> None:
        """Take LoRA-GA's start out of the base."""
        from grainline.adapters import lora_torch

        lora_torch.take_out(model)

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
