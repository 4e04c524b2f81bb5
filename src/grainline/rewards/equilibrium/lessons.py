r"""What is to be learnt: rows, targets, and losses whose derivatives are holomorphic functions of the outputs.

================  ==========================================================  =========================================
kind              value, by output z and target y                             dL/dz
================  ==========================================================  =========================================
CROSS_ENTROPY     -sum_a y log softmax(z)                                     softmax(z) - y
SQUARES           (z - y)^2 / 2                                               z - y
LIKELIHOOD        -y log s(z) - (1 - y) log s(-z), y from 0 to 1              s(z) - y
``ordinal``       mean over levels k of LIKELIHOOD at z - theta_k, [y > y_k]  mean over k of s(z - theta_k) - [y > y_k]
================  ==========================================================  =========================================

s(z) = 1 / (1 + exp(-z)). A nudged phase asks for dL/dz at complex outputs; that is what ``slope`` is for, and why there
is no hinge here. A *paired* lesson applies its kind to the difference of two rows: LIKELIHOOD of z_chosen - z_rejected
at y = 1 is the model of Bradley and Terry; its derivative nudges both rows at once, the one up and the other down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from grainline.errors import DataError


class Kind(NamedTuple):
    """A loss of one output and target, elementwise but for the classes of CROSS_ENTROPY."""

    value: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]  # of value by its first argument, which may be complex


def _softmax(outputs: Tensor) -> Tensor:
    powers = torch.exp(outputs - outputs.real.amax(-1, keepdim=True))  # torch's own takes no complex number
    return powers / powers.sum(-1, keepdim=True)


def _likelihood(outputs: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs, target, reduction="none")


CROSS_ENTROPY = Kind(lambda z, y: -y * z.log_softmax(-1), lambda z, y: _softmax(z) - y)
"""Classes; targets are one-hot, or shares that sum to 1. All classes of a row must weigh the same."""
SQUARES = Kind(lambda z, y: (z - y).square() / 2, lambda z, y: z - y)
LIKELIHOOD = Kind(_likelihood, lambda z, y: torch.sigmoid(z) - y)


def ordinal(thresholds_AK: Tensor, levels_K: Tensor) -> Kind:
    """Proportional odds: the log odds of y > levels[k] are z - thresholds[a, k]."""

    def over_levels(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        def averaged(outputs: Tensor, target: Tensor) -> Tensor:
            passed = (target[..., None] > levels_K).to(target.dtype)
            shifted = outputs[..., None] - thresholds_AK
            return function(shifted, passed.expand(shifted.shape)).mean(-1)

        return averaged

    return Kind(over_levels(LIKELIHOOD.value), over_levels(LIKELIHOOD.slope))


class Lesson(NamedTuple):
    """Examples. If paired, the first half of ``features`` are the chosen rows, the second half the rejected ones."""

    kind: Kind
    features: Tensor  # (N, D), or (2 N, D) if paired
    target: Tensor  # (N, A); of no matter where the weight is 0
    weight: Tensor  # (N, A) >= 0; 0 where nobody labelled
    paired: bool = False

    @classmethod
    def of(
        cls, kind: Kind, features: Tensor, target: Tensor, weight: Tensor | None = None, paired: bool = False
    ) -> Lesson:
        """A lesson whose unlabelled targets are NaN, or weigh 0; weights (N,) or (N, A) are brought to a mean of 1 over
        all others, so that without any a labelled output feels its own loss.

        Raises:
            DataError: nothing is labelled, or all that is has no weight.
        """
        weight_NA = torch.ones_like(target) if weight is None else weight.reshape(len(target), -1).expand_as(target)
        weight_NA = weight_NA * ~target.isnan()
        if not weight_NA.sum() > 0:
            raise DataError("no target of the lesson has a weight", instead="Label some rows, or weigh them above 0.")
        return cls(kind, features, target.nan_to_num(), weight_NA / weight_NA[weight_NA > 0].mean(), paired)

    def take(self, which_N: Tensor) -> Lesson:
        """Some of the examples."""
        rows = torch.cat([which_N, which_N + len(self.target)]) if self.paired else which_N
        return self._replace(features=self.features[rows], target=self.target[which_N], weight=self.weight[which_N])

    def even(self) -> tuple[Lesson, Tensor]:
        """The same examples without their weights, and those, by row of ``features``.

        A nudge is as strong as what it is made of, so a heavy example would be pushed further than |beta|; as the error
        is linear in the loss, the weight of a whole example is multiplied to its error instead. (What outputs of one
        example weigh beside each other stays; the heaviest weighs 1.)
        """
        weight_N = self.weight.amax(1)
        even_NA = self.weight / weight_N.where(weight_N > 0, 1.0)[:, None]
        return self._replace(weight=even_NA), weight_N.repeat(1 + self.paired)

    def value(self, outputs: Tensor) -> Tensor:
        """The loss, a scalar: the mean over examples of the weighted sum over outputs."""
        return (self.weight * self.kind.value(self._judged(outputs), self.target)).sum() / len(self.target)

    def slope(self, outputs: Tensor) -> Tensor:
        """How each example's own loss depends on the outputs (..., rows, A), complex or real."""
        felt = self.weight * self.kind.slope(self._judged(outputs), self.target)
        return torch.cat([felt, -felt], -2) if self.paired else felt

    def _judged(self, outputs: Tensor) -> Tensor:
        if not self.paired:
            return outputs
        chosen, rejected = outputs.chunk(2, -2)
        return chosen - rejected
