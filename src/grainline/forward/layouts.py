"""The probe: which batch layout gives the plain model's own numbers, found out on the user's model and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grainline.errors import ModelError
from grainline.forward.scorer import Scorer
from grainline.types import Batch, Example, Layout


class Chosen(NamedTuple):
    """A layout, and the sentence that says why."""

    layout: Layout
    why: str


def rounding(model: nn.Module) -> float:
    """Nats a token by which two exact ways of computing one log-prob may differ, for the dtype ``model`` is held in.

    In half precision the largest of some thousand tokens: measured 0.3 to 0.9 in bfloat16, with a root mean square of
    0.06, by the shape of a batch and the number of threads. Another model differs by several nats somewhere.
    """
    return {torch.float32: 1e-3, torch.float64: 1e-6}.get(next(model.parameters()).dtype, 2.0)


def choose_layout(
    scorer: Scorer, batches: Mapping[Layout, Batch], possible: Sequence[Layout], *, tolerance: float | None = None
) -> Chosen:
    """The first of the ``possible`` layouts whose numbers are the plain model's.

    The plain model is transformers' own forward with full logits of padded rows. Sets the scorer to the layout chosen.

    Args:
        batches: the same examples in every layout; ``padded`` must be among them.

    Raises:
        ModelError: none of the possible layouts agrees.
    """
    tolerance = tolerance or rounding(scorer.causal)
    with torch.no_grad(), scorer.plain() as model:
        truth = _plain_logprobs(model, batches["padded"])
    tried = []
    for layout in possible:
        batch = batches[layout]
        scorer.use(packed=layout != "padded")
        try:
            with torch.no_grad():
                error = float((scorer(batch).token - truth).abs().max())
        except (NotImplementedError, TypeError, ValueError, RuntimeError) as refusal:
            tried.append(f"{layout}: {type(refusal).__name__}: {str(refusal).splitlines()[0]}")
            continue
        tried.append(f"{layout}: differs from the plain model by {error:.1e} nats a token")
        if error <= tolerance:
            return Chosen(layout, "; ".join(tried))
    raise ModelError(
        "no layout gives the plain model's log-probabilities: " + "; ".join(tried),
        where=type(scorer.causal).__name__,
        instead="The architecture does something between its layers and its logits that is not known here.",
    )


def _plain_logprobs(model: Any, batch: Batch) -> Tensor:
    """The same (B, T) log-probs the slow, obvious way: full logits of padded rows, behind a learnt prompt if any."""
    logits = model(input_ids=batch.ids, attention_mask=torch.ones_like(batch.ids), use_cache=False).logits
    logits = logits[:, -batch.ids.shape[1] :]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)[batch.source]
    token_M = -F.cross_entropy(logits, batch.target, reduction="none")
    return token_M[batch.rows.clamp(min=0)].masked_fill(batch.rows < 0, 0.0)


def probe_length(config: Any, longest: int) -> int:
    """Tokens a probe must have to be longer than every sliding window, as far as the data's ``longest`` row asks."""
    windows: Sequence[int | None] = [getattr(config.get_text_config(), "sliding_window", None)]
    return min(longest, max((w + 16 for w in windows if w), default=64))


def probe_examples(examples: Sequence[Example], length: int) -> list[Example]:
    """A few short rows that together show everything: one of ``length`` tokens, and two of one prompt where there are
    two. The plain model reads each answer of theirs in a padded row of its own, the dearest part of a start."""

    def size(example: Example) -> int:
        return len(example.prompt) + max(len(answer.ids) for answer in example.answers)

    shortest = sorted(examples, key=size)
    few = [shortest[0], next((e for e in shortest if size(e) >= length), shortest[-1])]
    prompts: dict[tuple[int, ...], Example] = {}
    for example in shortest:
        if example.prompt in prompts and size(example) <= 512:
            return [*few, prompts[example.prompt], example]
        prompts[example.prompt] = example
    return few
