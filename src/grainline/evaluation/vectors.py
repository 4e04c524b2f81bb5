"""A text as a vector: the mean over its tokens of what a model holds of them last, the text read alone.

No sentence model is needed; one that is named takes its place. Distances are of one model only.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

from grainline.errors import ModelError
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


class Sentences(NamedTuple):
    """A sentence model, and what it is."""

    model: Any
    sha256: str  # of its weights

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        found = self.model.encode(list(texts), show_progress_bar=False, convert_to_numpy=True)
        return [[float(x) for x in vector] for vector in found]


def sentences(model: str, device: Any) -> Sentences:
    """A sentence-transformers model, by name or folder.

    Raises:
        ModelError: sentence-transformers is not installed, or there is no such model.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ModelError(
            "sentence-transformers is not installed.", where="embedding", instead="pip install grainline[select]."
        )
    from sentence_transformers import SentenceTransformer

    try:
        loaded = SentenceTransformer(model, device=str(device), model_kwargs={"use_safetensors": True})
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise ModelError(f"{model!r} cannot be loaded: {said}", where="embedding", instead="Give a folder.") from error
    digest = hashlib.sha256()
    for name, tensor in sorted(loaded.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return Sentences(loaded.eval(), digest.hexdigest())
