"""What every adapter promises, tried on a model: the checks of ``grainline contract`` and of the adapters' battery.

Each check is a function of a :class:`Subject` (an adapter, and a way to a fresh base model) and answers with one
:class:`Finding`. Tensors are moved away from their start before a property is tried, so that nothing holds only because
an adapter starts as the identity. Differences are the largest of all log-probs (nats) on the subject's tokens.
"""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from grainline import as_lora, export, first_look, models
from grainline.adapters import _seam as adapters
from grainline.errors import GrainlineError
from grainline.types import Tagged

Verdict = Literal["kept", "broken", "excused"]


class Finding(NamedTuple):
    """What became of one promise."""

    promise: str
    verdict: Verdict  # "excused": the adapter says beforehand, or in its refusal, that it does not promise this
    said: str


class Subject:
    """An adapter on a model.

    Args:
        adapter: a spec of the adapters room.
        base: the model, without adapter; copied for every check, never changed.
        ids: (rows, tokens) int64 that all comparisons read.
        tolerance: nats that two exact ways may differ by, layer after layer; None: by the base's dtype.
    """

    def __init__(self, adapter: Any, base: Any, ids: Tensor, tolerance: float | None = None) -> None:
        self.adapter, self.base, self.ids, self.labels = adapter, base, ids, ids
        if hasattr(adapter, "examined"):  # it reads ids of its own, to which the model has no answer
            self.base, self.ids = copy.deepcopy(base), adapter.examined(ids)
            adapter.readied(self.base)
        self.single = next(base.parameters()).dtype == torch.float32
        self.tolerance = tolerance or (1e-3 if self.single else 0.5)
        self.excuses: dict[str, str] = dict(getattr(adapter, "exceptions", {}))
        if adapter.changes_base:
            why = "attaching changes the base (changes_base)"
            self.excuses |= {"off is the base": why, "two adapters": why}

    def attached(self, base: Any = None) -> Any:
        """A fresh adapter on a copy of the base, or on ``base`` itself."""
        return copy.deepcopy(self._fresh) if base is None else self._attach(base)

    @functools.cached_property
    def _fresh(self) -> Any:
        return self._attach(copy.deepcopy(self.base))  # once: a start may decompose every weight

    def _attach(self, base: Any) -> Any:
        torch.manual_seed(0)
        model = adapters.attach(self.adapter, base)
        first_look.begin(self.adapter, model, lambda: iter([self._loss(model)]))  # of random ids, for want of rows
        return model

    def _loss(self, model: Any) -> Tensor:
        mask = torch.ones_like(self.ids)
        return model.train()(input_ids=self.ids, attention_mask=mask, labels=self.labels, use_cache=False).loss

    def moved(self, model: Any = None, size: float = 0.02, *, seed: int = 1) -> Any:
        """``model`` (default: a new one) with each trainable tensor moved, by ``size`` of its own size."""
        model = self.attached() if model is None else model
        torch.manual_seed(seed)
        with torch.no_grad():
            for tensor in filter(lambda p: p.requires_grad, model.parameters()):
                step = size * (1 + tensor.abs().mean())
                tensor.add_(step * torch.randn(tensor.shape).to(tensor))
        return model

    def logits(self, model: Any) -> Tensor:
        """(rows, tokens, vocabulary) float32, in evaluation mode; without the positions of a learnt prompt."""
        with torch.no_grad():
            said = model.eval()(input_ids=self.ids, attention_mask=torch.ones_like(self.ids), use_cache=False).logits
        return said[:, -self.ids.shape[1] :].float()

    def gradients(self, model: Any) -> dict[str, Tensor]:
        """Name -> gradient of a next-token loss, of every tensor that has one."""
        model.zero_grad()
        self._loss(model).backward()
        return {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.grad is not None}


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference of two models' log-probs, nats."""
    return float((a.log_softmax(-1) - b.log_softmax(-1)).abs().max())


def base(model: str = "") -> Any:
    """The model of that name; without one a random Llama of two layers, the same one each time."""
    if model:
        return models.load(model).model
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = LlamaConfig(**sizes, num_hidden_layers=2, vocab_size=256, initializer_range=0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).float().eval()


def tokens(model: Any, rows: int, length: int) -> Tensor:
    """(rows, length) random tokens of the model's vocabulary, the same ones each time, where the model is."""
    drawn = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.get_text_config().vocab_size, (rows, length), generator=drawn)
    return ids.to(next(model.parameters()).device)


# ---------------------------------------------------------------------------------------------------- the promises


def fresh_is_the_base(subject: Subject) -> str:
    """A fresh adapter changes nothing."""
    return _near(subject, subject.logits(subject.attached()), subject.logits(subject.base))


def it_changes_the_model(subject: Subject) -> str:
    """A moved adapter does."""
    found = apart(subject.logits(subject.moved()), subject.logits(subject.base))
    return _said(found > 1e-4, f"{found:.2g} nats")


def off_is_the_base(subject: Subject) -> str:
    """With the adapter off the model is the base bit for bit, and its weights are untouched."""
    model = subject.moved()
    with model.disable_adapter():
        same = torch.equal(subject.logits(model), subject.logits(subject.base))
    untouched = models.fingerprint(model) == models.fingerprint(subject.base)
    return _said(same and untouched, "bit for bit" if same else "other logits")


def only_tagged_train(subject: Subject) -> str:
    """Every tensor with a role gets a gradient, no other does, and none of them is the base's own."""
    model = subject.moved()
    tagged = adapters.tagged(subject.adapter, model)
    found, names = set(subject.gradients(model)), {one.name for one in tagged}
    odd = found ^ names
    if not subject.adapter.changes_base:
        base = {id(tensor) for _, tensor in models.base_parameters(model)}
        odd |= {one.name for one in tagged if id(one.tensor) in base}
    roles = ", ".join(sorted({one.role for one in tagged}))
    return _said(bool(names) and not odd, f"roles: {roles}" if not odd else f"e.g. {min(odd)}")


def parameters_as_stated(subject: Subject) -> str:
    """What ``plan`` counts from shapes alone is what trains."""
    real = count(adapters.tagged(subject.adapter, subject.attached()))
    stated = count(adapters.tagged(subject.adapter, adapters.attach_shapes(subject.adapter, _shapes(subject.base))))
    return _said(real == stated, f"{real:,}" if real == stated else f"{real:,} train, {stated:,} were stated")


def merged_is_the_adapted(subject: Subject) -> str:
    """Merged weights say what the adapter says, and merging leaves the adapted model alone."""
    model = subject.moved()
    adapted = subject.logits(model)
    plain = export.merged(model)
    if not torch.equal(subject.logits(model), adapted):
        return _said(False, "merging a copy changed the original")
    return _near(subject, subject.logits(plain), adapted)


def unmerging_restores(subject: Subject) -> str:
    """Merging in place and taking it back gives the adapted model again."""
    model = subject.moved()
    as_lora.check_mergeable(model)
    adapted = subject.logits(model)
    with as_lora.merging():
        model.merge_adapter()
        model.unmerge_adapter()
    return _near(subject, subject.logits(model), adapted)


def saved_and_loaded(subject: Subject) -> str:
    """PEFT's own ``from_pretrained`` on an untouched base gives the same tensors and log-probs, and so does ours."""
    import peft

    model = subject.attached()
    wrapped = hasattr(model, "peft_config")
    with tempfile.TemporaryDirectory() as scratch:
        initial = Path(scratch) / "initial" if wrapped and subject.adapter.changes_base else None
        if initial is not None:
            export.write_initial(model, initial)
        adapted = subject.logits(subject.moved(model))
        export.write_adapter(model, Path(scratch) / "adapter", ids=subject.ids[0].tolist(), initial=initial)
        if wrapped:
            again = peft.PeftModel.from_pretrained(copy.deepcopy(subject.base), scratch + "/adapter")
        else:
            again = type(subject.base).from_pretrained(scratch + "/adapter")
        ours = export.load_adapter(copy.deepcopy(subject.base), Path(scratch) / "adapter")
        theirs = subject.logits(again)
        if any(tensor.requires_grad for tensor in ours.parameters()):
            return _said(False, "what was loaded to be read would train")
        if not torch.equal(subject.logits(ours), theirs):
            return _said(False, "our loading differs from PEFT's")
    if not subject.adapter.changes_base:  # else it is stored as another factorisation
        kept = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
        found = peft.get_peft_model_state_dict(again, save_embedding_layers=False)
        if kept.keys() != found.keys() or not all(torch.equal(kept[name], found[name]) for name in kept):
            return _said(False, "other tensors")
    return _near(subject, theirs, adapted)


def two_adapters(subject: Subject) -> str:
    """A second adapter on the same model leaves the first as it was."""
    model = subject.moved()
    first = subject.logits(model)
    model.add_adapter("second", subject.adapter.config(model))
    model.set_adapter("second")
    second = subject.logits(subject.moved(model, seed=2))
    model.set_adapter("default")
    return _said(torch.equal(subject.logits(model), first) and not torch.equal(second, first), "one at a time")


def layers_recomputed(subject: Subject) -> str:
    """Gradient checkpointing gives the same gradients."""
    base = copy.deepcopy(subject.base)
    models.checkpoint_layers(base)
    expected = subject.gradients(subject.moved(subject.attached()))
    found = subject.gradients(subject.moved(subject.attached(base)))
    if expected.keys() != found.keys():
        return _said(False, f"{len(found)} gradients instead of {len(expected)}")
    size = max(float(gradient.abs().max()) for gradient in expected.values())
    error = max(float((found[name] - expected[name]).abs().max()) for name in expected) / size
    return _said(error <= (1e-4 if subject.single else 0.05), f"{error:.1g} of the largest gradient")


def bfloat16_base(subject: Subject) -> str:
    """On a bfloat16 base (a quantised one: as it is) the adapter stays float32 and its gradients are finite."""
    base = copy.deepcopy(subject.base)
    quantised = getattr(base, "is_quantized", False)
    model = subject.moved(subject.attached(base if quantised else base.to(torch.bfloat16)))
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in subject.gradients(model).values())
    tagged = adapters.tagged(subject.adapter, model)
    own = [one for one in tagged if one.role != "weight"] or tagged  # without modules that are trained whole
    held = {one.tensor.dtype for one in own}
    names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in held))
    return _said(finite and held == {torch.float32}, f"held in {names}" + ("" if finite else "; gradients not finite"))


PROMISES: dict[str, Callable[[Subject], str]] = {
    "parameters as stated": parameters_as_stated,
    "only tagged tensors train": only_tagged_train,
    "fresh is the base": fresh_is_the_base,
    "it changes the model": it_changes_the_model,
    "off is the base": off_is_the_base,
    "merged is the adapted": merged_is_the_adapted,
    "unmerging restores": unmerging_restores,
    "saved and loaded": saved_and_loaded,
    "two adapters": two_adapters,
    "layers recomputed": layers_recomputed,
    "bfloat16 base": bfloat16_base,
}


class Broken(Exception):
    """A promise that was not kept; the message says by how much."""


def tried(promise: str, subject: Subject) -> Finding:
    """One promise, tried. What the adapter excuses beforehand, or refuses with a reason of ours, is no breach."""
    if promise in subject.excuses:
        return Finding(promise, "excused", subject.excuses[promise])
    try:
        return Finding(promise, "kept", PROMISES[promise](subject))
    except Broken as broken:
        return Finding(promise, "broken", str(broken))
    except GrainlineError as refusal:
        return Finding(promise, "excused", str(refusal))
    except Exception as error:  # a tuner of somebody else's may fail in any way; the table goes on and says so
        return Finding(promise, "broken", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def examine(subject: Subject) -> list[Finding]:
    """All promises, in the order of :data:`PROMISES`."""
    return [tried(promise, subject) for promise in PROMISES]


def count(tagged: list[Tagged]) -> int:
    """Trainable numbers."""
    return sum(one.tensor.numel() for one in tagged)


def _said(kept: bool, said: str) -> str:
    if not kept:
        raise Broken(said)
    return said


def _near(subject: Subject, found: Tensor, wanted: Tensor) -> str:
    error = apart(found, wanted)
    return _said(error <= subject.tolerance, f"{error:.2g} nats (allowed {subject.tolerance:g})")


def _shapes(base: Any) -> Any:
    with torch.device("meta"):
        return type(base)(base.config)
