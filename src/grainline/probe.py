"""A probe: what a model says of a few tokens, stored beside its weights so that a load can be checked.

PEFT and transformers skip tensors that do not fit and carry on; a model that repeats its probe was read whole, on the
base it was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from grainline.errors import ModelError

if TYPE_CHECKING:
    import torch

FILE = "probe.json"
TEXT = "What is the capital of France? The capital of France is Paris."


class Probe(NamedTuple):
    """What a model says of a few tokens: enough to tell two models apart."""

    ids: tuple[int, ...]
    token_logps: tuple[float, ...]  # nats, log p(ids[t+1] | ids[:t+1]); one fewer than ids
    top_ids: tuple[int, ...]  # the likeliest next tokens after all of ids
    top_logps: tuple[float, ...]  # nats
    dtype: str  # of the base weights


def measure(model: Any, ids: Sequence[int], *, top: int = 16) -> Probe:
    """The model's log-probs of ``ids`` in evaluation mode, log-softmax in float32."""
    import torch

    first, mode = next(model.parameters()), model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(ids)], device=first.device), use_cache=False).logits[0]
    model.train(mode)
    logp = logits.float().log_softmax(-1).cpu()
    token = logp[:-1].gather(1, torch.tensor(list(ids[1:])).unsqueeze(1)).squeeze(1)
    best = logp[-1].topk(min(top, logp.shape[-1]))
    return Probe(tuple(ids), _tuple(token), tuple(best.indices.tolist()), _tuple(best.values), dtype_name(model))


def tokens(tokenizer: Any) -> tuple[int, ...]:
    """Tokens of a short fixed text, the same for each model of one tokenizer."""
    return tuple(tokenizer(TEXT)["input_ids"][:64])


def distance(model: Any, stored: Probe) -> float:
    """Largest absolute difference, in nats, between ``stored`` and what ``model`` says of the same tokens now."""
    # The likeliest tokens may swap places between two machines, so the stored ones are looked up, not ranked again.
    again = measure(model, stored.ids, top=10**9)
    now = dict(zip(again.top_ids, again.top_logps, strict=True))
    pairs = [*zip(stored.token_logps, again.token_logps, strict=True)]
    pairs += [(logp, now[token]) for token, logp in zip(stored.top_ids, stored.top_logps, strict=True)]
    return max(abs(a - b) for a, b in pairs)


def check(model: Any, folder: Path) -> float:
    """See that ``model`` repeats the probe stored in ``folder``; returns the largest difference in nats.

    Raises:
        ModelError: it does not, or there is no probe.
    """
    stored = read(folder)
    try:
        error = distance(model, stored)
    except (IndexError, KeyError, RuntimeError) as cause:
        raise ModelError(f"this model cannot read the stored tokens ({cause}).", where=str(folder)) from cause
    # float32: sums are taken in another order on another machine. Half precision: its rounding, layer after layer.
    allowed = 1e-3 if stored.dtype == dtype_name(model) == "float32" else 0.5
    if not error <= allowed:
        raise ModelError(
            f"the loaded model differs by {error:.3g} nats from the one that was saved (allowed: {allowed:g}).",
            where=str(folder),
            instead="Is it the same base model, in the same revision?",
        )
    return error


def read(folder: Path) -> Probe:
    """The probe stored in ``folder``.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    try:
        stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
        token_logps, top_logps = tuple(stored["token_logps"]), tuple(stored["top_logps"])
        return Probe(tuple(stored["ids"]), token_logps, tuple(stored["top_ids"]), top_logps, stored["dtype"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"no readable {FILE} ({error}).", where=str(folder)) from error


def write(probe: Probe, folder: Path) -> None:
    """Store ``probe`` in ``folder``."""
    (folder / FILE).write_text(json.dumps(probe._asdict(), indent=1), encoding="utf-8")


def is_in(folder: Path) -> bool:
    """Whether ``folder`` holds a probe."""
    return (folder / FILE).is_file()


def dtype_name(model: Any) -> str:
    """What the base weights are held in: float32, bfloat16... The first parameter of a model is its embedding."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def _tuple(tensor: torch.Tensor) -> tuple[float, ...]:
    return tuple(tensor.tolist())
