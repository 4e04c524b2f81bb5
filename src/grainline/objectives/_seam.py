"""The interface of an objective, and the one way to combine objectives.

An objective is a spec that can be called::

    objective(policy, reference, batch, heads) -> Losses

``policy`` and ``reference`` are :class:`~grainline.types.LogProbs`; ``batch`` holds what is known of the rows beside
their log-probs; ``heads`` maps names to the outputs of the objective's own trainable modules. It is pure: same
tensors in, same tensors out, nothing kept. It states what it needs, and gets exactly that:

=====================  ==================================================================
need                   what it means
=====================  ==================================================================
pairs                  rows are [chosen; rejected], ``batch`` is :class:`~grainline.types.Pairs`
labels                 rows are single answers with a label, ``batch`` is
                       :class:`~grainline.types.Rows`; in a sum with ``pairs`` it is pairs, whose
                       chosen half is desirable
mismatched             with ``labels``: behind the rows stand as many again, where each
                       prompt has an answer to another prompt of the step
reference              the reference's log-probs (without it ``reference`` is None)
segments               ``segment`` and ``score`` in the log-probs; ``score_range``, if stated, says
                       between which numbers (low, high) scores must lie
number NAME            ``batch.number(NAME)``, a number from the data's column NAME, in every training row, and
                       there at least ``least``, if stated;
                       on held-out rows it may be NaN, and margins may not depend on it
kl                     ``kl`` in the policy's log-probs: KL(reference || policy) over the whole
                       vocabulary at every token, exact, with its gradient
concentration          ``concentration`` in the policy's log-probs: log sum_v p(v)^2 of the distribution that each token
                       is taken from, without gradient
reference_hidden       the reference's final hidden states, for the objective's own modules
reference_layers       its hidden states after every layer, for the objective's own modules
reference_activations  ``activations`` in the reference's log-probs
=====================  ==================================================================

``kl`` and the last three come with ``reference``. What nobody needs is not computed.

An objective may also state

===============  ==========================================================================
``heads(dims)``  its own trainable modules, a ``torch.nn.Module`` that is called with
                 :class:`~grainline.types.Seen` and answers with (B, T) tensors: a mapping
                 with the keys ``names``. ``role`` is the role of its parameters for
                 optimizers. Outputs reach the objective in ``heads``; where there are none
                 (an evaluation of the exported adapter) it must do without
``coupled``      True where a row's loss depends on the other rows of the step. It is then
                 called with all rows of the step over all processes
                 (:mod:`grainline.coupling`), at the price of one more forward
``state``        numbers that it carries from step to step, with their first values. They
                 come in ``heads`` under their names, and go out in ``Losses.state``
===============  ==========================================================================

``margin`` and ``log`` may not read ``score``: they are taken with every token counting 1, in training and on held-out
rows alike, so that no annotation of a row helps to predict its label.

Without ``pairs`` or ``labels`` the rows are the desirable answers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from pydantic import model_validator

from grainline.types import Losses, Term, spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Pairs, Rows

NEEDS = frozenset({"pairs", "labels", "reference", "segments"})
NEEDS |= {"kl", "concentration", "mismatched", "reference_hidden", "reference_layers", "reference_activations"}


def unknown(needs: frozenset[str]) -> frozenset[str]:
    """Those of ``needs`` that nothing supplies."""
    return frozenset(need for need in needs - NEEDS if not need.startswith("number "))


class Objective(Protocol):
    @property
    def needs(self) -> frozenset[str]: ...

    def __call__(
        self, policy: LogProbs, reference: LogProbs | None, batch: Pairs | Rows, heads: Mapping[str, Tensor]
    ) -> Losses: ...


@spec
class Sum:
    """``dpo + 0.2*bco + sft``: each summand keeps its own mean, so token means and pair means add exactly."""

    terms: tuple = ()
    """(coefficient, objective) pairs."""

    @model_validator(mode="after")
    def _rows_are_read_alike(self) -> Sum:
        if {"pairs", "mismatched"} <= self.needs:
            raise ValueError(
                "some summands read pairs, others (kto) single answers with answers to other prompts behind them; "
                "beside pairs choose bco"
            )
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(objective.needs for _, objective in self.terms))

    @property
    def coupled(self) -> bool:
        return any(getattr(objective, "coupled", False) for _, objective in self.terms)

    @property
    def state(self) -> dict[str, float]:
        stated = ((i, getattr(objective, "state", {})) for i, (_, objective) in enumerate(self.terms))
        return {f"{i}.{name}": value for i, state in stated for name, value in state.items()}

    @property
    def score_range(self) -> tuple[float, float] | None:
        """The narrowest that a summand states."""
        stated = [r for _, objective in self.terms if (r := getattr(objective, "score_range", None)) is not None]
        return (max(low for low, _ in stated), min(high for _, high in stated)) if stated else None

    @property
    def least(self) -> float | None:
        """The largest bound that a summand states."""
        stated = [low for _, objective in self.terms if (low := getattr(objective, "least", None)) is not None]
        return max(stated, default=None)

    def __call__(
        self, policy: LogProbs, reference: LogProbs | None, batch: Pairs | Rows, heads: Mapping[str, Tensor]
    ) -> Losses:
        parts = [
            (c, objective(policy, reference, batch, _of_summand(i, heads)))
            for i, (c, objective) in enumerate(self.terms)
        ]
        terms = {
            f"{i}.{name}": Term(term.value, term.count, c * term.coefficient)
            for i, (c, losses) in enumerate(parts)
            for name, term in losses.terms.items()
        }
        margin = next((losses.margin for _, losses in parts if losses.margin is not None), None)
        log = {key: value for _, losses in reversed(parts) for key, value in losses.log.items()}
        state = {f"{i}.{name}": value for i, (_, losses) in enumerate(parts) for name, value in losses.state.items()}
        return Losses(terms, margin, log, state)


def _of_summand(i: int, heads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the modules and the state of summand ``i`` say, under its own names."""
    return {name.removeprefix(f"{i}."): value for name, value in heads.items() if name.startswith(f"{i}.")}
