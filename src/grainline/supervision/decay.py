r"""Temporal decay: the beginning of an answer speaks loudest.

Shao et al. 2025 (D2PO), arXiv:2502.14340. The t-th token of an answer of T tokens, t from 0, has the weight

============  =======================================================  ==============================================
shape         weight                                                   in the paper
============  =======================================================  ==============================================
exponential   gamma^(t + offset)                                       Eq. 5; the method
head          1 for t < floor(gamma T), else 0                         Table 4, compared
linear        max(0, 1 - t / (gamma T))                                Table 4, compared
power         (t + 1)^-gamma                                           Table 4, compared
============  =======================================================  ==============================================

and the end-of-turn token counts as one of the T. The paper says three different things about where the decay begins:
Eq. 5 and Figure 2 give the first answer token gamma^0 (``equation``); the released code gives it gamma^1 (``code``, the
default); the text states that it begins with the prompt, gamma^(prompt tokens) (``prompt``), and that this was best.

Traps: ``prompt`` multiplies beta by gamma^(prompt tokens): 0.98^200 is 0.018, so long prompts hardly train and another
beta is best. Objectives that divide by the length (simpo, orpo, ipo) divide by the weights' sum here; the release
divides by the number of tokens there. gamma = 1 is ``sequence``.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from grainline.types import Example, spec


@spec
class Decay:
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = "arXiv:2502.14340"

    gamma: float = Field(0.98, gt=0)
    """exponential: weight of each token over the one before, 0.98 in the paper, above 1 for later tokens louder; head,
    linear: share of the answer that speaks; power: exponent."""
    shape: Literal["exponential", "head", "linear", "power"] = "exponential"
    """How the weight falls along the answer."""
    offset: Literal["code", "equation", "prompt"] = "code"
    """Exponent of the first answer token: 1 (code), 0 (equation), or the prompt's tokens (prompt). Read by
    exponential."""

    @model_validator(mode="after")
    def _options_are_read(self) -> Decay:
        if self.offset != "code" and self.shape != "exponential":
            raise ValueError("offset is read with shape=exponential only")
        if self.gamma > 1 and self.shape in ("head", "linear"):
            raise ValueError(f"shape={self.shape} reads gamma as a share of the answer: at most 1")
        return self

    def __call__(self, example: Example) -> Example:
        first = {"code": 1, "equation": 0, "prompt": len(example.prompt)}[self.offset]
        answers = (answer._replace(weight=self._weights(len(answer.ids), first)) for answer in example.answers)
        return example._replace(answers=tuple(answers))

    def _weights(self, length: int, first: int) -> tuple[float, ...]:
        spoken = self.gamma * length
        rule = {
            "exponential": lambda t: self.gamma ** (t + first),
            "head": lambda t: float(t < math.floor(spoken + 1e-9)),
            "linear": lambda t: max(0.0, 1 - t / spoken),
            "power": lambda t: (t + 1) ** -self.gamma,
        }[self.shape]
        return tuple(rule(t) for t in range(length))
