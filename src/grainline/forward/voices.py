"""Policy and reference of one batch, asked in the order that serves both: the reference first, since the policy may
have to be compared with it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from grainline.types import Batch, LogProbs

ASKED = ("kl", "concentration")
"""Needs that are questions to the policy's forward, beside its log-probs."""


def voices(
    scorer: Any, reference: Callable[[Batch], LogProbs] | None, batch: Batch, needs: Collection[str]
) -> tuple[LogProbs, LogProbs | None]:
    """What the policy and (where there is one) the reference say of ``batch``.

    The scorer is told of the reference only where that kept more than log-probs, for a divergence or for an
    objective's own modules.
    """
    against = reference(batch) if reference is not None else None
    asked = {need: True for need in ASKED if need in needs}
    if against is None or against.hidden is None:
        return scorer(batch, **asked), against
    return scorer(batch, against, **asked), against
