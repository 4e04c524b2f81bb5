r"""Shared length: what the longer answer says beyond the shorter one's length speaks softer.

Liu et al. 2024 (LD-DPO, length-desensitised DPO), arXiv:2409.06411. With m = min(|y_w|, |y_l|) tokens,

.. math:: w_t = 1 \text{ for } t \le m, \qquad w_t = \alpha \text{ for } t > m

on both answers, so the log-ratio of the longer one is cut in two and its tail damped. The weights follow from lengths
alone, which are known before any model has run: so this is a supervision, for every objective, and LD-DPO is the preset
``ld-dpo`` (this and dpo). The end-of-turn token counts as a token.

Traps: policy and reference are damped alike, as in TRL's ``ld_alpha``; LLaMA-Factory and ms-swift damp the policy only,
which is not here. An objective that divides by the length divides by the weights' sum; TRL by the number of tokens.
tail = 1 is ``sequence``; a single labelled answer has no partner and is refused.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from grainline.supervision._parts import partners
from grainline.types import Example, spec


@spec
class SharedLength:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    paper: ClassVar[str] = "arXiv:2409.06411"

    tail: float = Field(0.5, ge=0, le=1)
    """alpha: weight of each token beyond the shorter answer's length. 0.5 is what TRL's documentation calls typical
    (0.3 Llama-2-13B, 0.5 Llama-3-8B, 0.6 Qwen2-7B)."""

    def __call__(self, example: Example) -> Example:
        shared = min(len(answer.ids) for answer in partners(example))
        answers = (
            answer._replace(weight=(1.0,) * shared + (self.tail,) * (len(answer.ids) - shared))
            for answer in example.answers
        )
        return example._replace(answers=tuple(answers))
