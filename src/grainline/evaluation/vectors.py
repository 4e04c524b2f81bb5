"""A text as a vector: the mean over its tokens of what a model holds of them last, the text read alone.

No sentence model is needed, and none compares better what this model says; distances are of one model only.
"""

from __future__ import annotations

from collections.abc import Sequence

from grainline.evaluation.drift import example
from grainline.evaluation.preferences import forwards
from grainline.evaluation.speakers import Speaker, Subject


def vectors(
    speaker: Speaker, subject: Subject, texts: Sequence[Sequence[int]], *, max_tokens: int
) -> list[list[float]]:
    """One vector for each of ``texts`` (tokens, at least one each); its end token is read before it, as a beginning.

    State t is what the model holds before token t, so the last token itself is not seen; answers end with one that says
    little.
    """
    import torch

    start = (int(subject.tokenizer.eos_token_id),)
    examples = [example(str(i), start, ids) for i, ids in enumerate(texts)]
    found: dict[str, list[float]] = {}
    with torch.no_grad(), speaker.within():
        for batch in forwards(examples, rows="chosen", layout=subject.layout, max_tokens=max_tokens):  # type: ignore[arg-type]
            said = speaker.scorer(batch.to(subject.device), keep=("hidden",))
            state = said.hidden[:, :, -1].double() * said.mask[..., None]
            means = state.sum(1) / said.mask.sum(1, keepdim=True)
            found |= dict(zip(batch.facts.ids, means.tolist(), strict=True))
    return [found[str(i)] for i in range(len(texts))]
