"""TRL's own loss code on random inputs, beside ours: which text of ours equals which of its settings.

No trainer is built and no model run. Methods of the installed TRL are called on the few attributes that they read, and
on a "model" that answers with given logits; both sides are differentiated by the same logits. Every prompt is one
token, because TRL's ORPO takes its likelihood over the prompt as well, and a first token is predicted by nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from grainline import rooms
from grainline.types import Answer, AnswerTokens, Example, LogProbs, Pairs, Record

VOCABULARY = 7
LENGTHS = (6, 2, 4, 1, 3, 6, 5, 2)  # tokens of the answers: four chosen, four rejected


class Case(NamedTuple):
    """A choice of ours and the setting of TRL's that it is compared with."""

    objective: str
    trainer: str  # "DPO", "CPO" or "ORPO"
    settings: dict[str, Any]
    supervision: str = "sequence"
    why: str = ""  # why the two differ; "" where they must be equal
    dtype: torch.dtype = torch.float64

    @property
    def single(self) -> bool:
        """Whether TRL rounds something to float32: all of it, ORPO's log-probs, EXO's label smoothing."""
        return self.dtype is torch.float32 or self.trainer == "ORPO" or self.settings["loss_type"] == "exo_pair"

    @property
    def setting(self) -> str:
        """TRL's setting as one would write it; defaults of the config are written too where ours differ."""
        return f"{self.trainer}Config({', '.join(f'{key}={value!r}' for key, value in self.settings.items())})"


def dpo(objective: str, loss_type: Any, supervision: str = "sequence", why: str = "", **settings: Any) -> Case:
    # its alpha divergence knows float16, bfloat16 and float32 only
    single = settings.get("f_divergence_type") == "alpha_divergence"
    settings = {"loss_type": loss_type, "beta": 0.1, **settings}
    return Case(objective, "DPO", settings, supervision, why, torch.float32 if single else torch.float64)


def cpo(objective: str, loss_type: str, **settings: Any) -> Case:
    return Case(objective, "CPO", {"loss_type": loss_type, "beta": 0.1, **settings})


CASES = (
    dpo("dpo", "sigmoid"),
    dpo("dpo:beta=0.5,divergence=forward_kl", "sigmoid", beta=0.5, f_divergence_type="forward_kl"),
    dpo("dpo:beta=0.5,divergence=js", "sigmoid", beta=0.5, f_divergence_type="js_divergence"),
    *(
        dpo(
            f"dpo:divergence=alpha,alpha={a}",
            "sigmoid",
            f_divergence_type="alpha_divergence",
            f_alpha_divergence_coef=a,
        )
        for a in (0.25, 0.5, 1.0, 1.5)
    ),
    dpo("dpo:normalise=mean,beta=2.0", "sigmoid_norm", beta=2.0),
    dpo("dpo", "sigmoid", supervision="shared-length:tail=0.3", ld_alpha=0.3),
    dpo("hinge:beta=0.5", "hinge", beta=0.5),
    dpo("hinge", "hinge", supervision="shared-length", ld_alpha=0.5),
    dpo("ipo", "ipo"),
    dpo("ipo:beta=1.0", "ipo", beta=1.0),
    dpo("exo", "exo_pair", label_smoothing=1e-3),
    dpo("exo:beta=0.5,label_smoothing=0.2", "exo_pair", beta=0.5, label_smoothing=0.2),
    dpo("nca:beta=0.5", "nca_pair", beta=0.5),
    dpo("robust", "robust", label_smoothing=0.1),
    dpo("robust:beta=0.5,label_smoothing=0.3", "robust", beta=0.5, label_smoothing=0.3),
    dpo("sppo-hard", "sppo_hard"),
    dpo("apo-zero:beta=0.5", "apo_zero", beta=0.5),
    dpo("apo-down:beta=0.5", "apo_down", beta=0.5),
    dpo("aot", "aot"),
    dpo("aot:beta=0.5,variant=unpaired,label_smoothing=0.1", "aot_unpaired", beta=0.5, label_smoothing=0.1),
    dpo("discopop", "discopop", beta=0.05, discopop_tau=0.05),
    dpo("discopop:beta=0.5,tau=0.3", "discopop", beta=0.5, discopop_tau=0.3),
    dpo("wpo", "sigmoid", use_weighting=True),
    dpo("wpo:beta=0.5", "sigmoid", beta=0.5, use_weighting=True),
    dpo("2.0*bco:shift=none", "bco_pair"),
    dpo("sft", "sft"),
    dpo("dpo + 0.005*sft", ["sigmoid", "sft"], loss_weights=[1.0, 0.005]),
    dpo("0.8*dpo + 0.2*apo-zero + 0.5*sft", ["sigmoid", "apo_zero", "sft"], loss_weights=[0.8, 0.2, 0.5]),
    dpo("0.8*dpo + 0.4*bco:shift=none + sft", ["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0]),
    cpo("cpo", "sigmoid", cpo_alpha=1.0),
    cpo("cpo:beta=0.5,sft=0.3,label_smoothing=0.1", "sigmoid", beta=0.5, cpo_alpha=0.3, label_smoothing=0.1),
    cpo("cpo:link=hinge", "hinge", cpo_alpha=1.0),
    cpo("cpo:link=ipo,sft=0.0", "ipo", cpo_alpha=0.0),
    cpo("simpo", "simpo", beta=2.5, simpo_gamma=1.375),
    cpo("simpo:gamma=0.55,gamma_as=ratio", "simpo", beta=2.5, simpo_gamma=1.375),
    cpo("simpo:beta=10.0,gamma=3.0,label_smoothing=0.1", "simpo", beta=10.0, simpo_gamma=3.0, label_smoothing=0.1),
    cpo("simpo:beta=0.1,gamma=0.5 + sft", "simpo", simpo_gamma=0.5, cpo_alpha=1.0),
    cpo("alphapo", "alphapo", beta=2.5, simpo_gamma=0.25, alpha=0.25),
    cpo(
        "alphapo:alpha=-0.5,label_smoothing=0.1", "alphapo", beta=2.5, simpo_gamma=0.25, alpha=-0.5, label_smoothing=0.1
    ),
    Case("orpo", "ORPO", {"beta": 0.1}),
    Case("orpo:beta=0.5", "ORPO", {"beta": 0.5}),
    dpo(
        "dpo:label_smoothing=0.1",
        "sigmoid",
        label_smoothing=0.1,
        why="TRL ignores label_smoothing with sigmoid; ours is cDPO. Equal to TRL: dpo",
    ),
    dpo("ipo:normalise=sum", "ipo", why="TRL has the mean only. Equal to TRL: ipo"),
    dpo(
        "ipo",
        "ipo",
        supervision="shared-length",
        ld_alpha=0.5,
        why="TRL divides by the number of tokens, ours by the sum of their weights",
    ),
    dpo(
        "wpo:alignment=none",
        "sigmoid",
        use_weighting=True,
        why="weights are plain probabilities, TRL's are divided by sum p^2. Equal to TRL: wpo",
    ),
    dpo(
        "0.8*dpo + 0.4*bco + sft",
        ["sigmoid", "bco_pair", "sft"],
        loss_weights=[0.8, 0.2, 1.0],
        why="the preset mpo has the paper's running reward shift, TRL has none. Equal to TRL: bco:shift=none in it",
    ),
)
"""Everything that is compared; cases with a ``why`` differ on purpose."""


class Inputs(NamedTuple):
    """One batch: rows chosen first, a prompt of one token, then the answer, then padding."""

    policy: Tensor  # (B, L, V) logits
    reference: Tensor
    ids: Tensor  # (B, L)
    mask: Tensor  # (B, L) answer tokens


class Found(NamedTuple):
    loss: float
    gradient: Tensor  # (B, L, V), by the policy's logits


def inputs(seed: int, dtype: torch.dtype) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    length_B = torch.tensor(LENGTHS)[:, None]
    place = torch.arange(int(length_B.max()) + 1)
    shape = (len(LENGTHS), len(place), VOCABULARY)
    policy, move = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    ids = torch.randint(1, VOCABULARY, shape[:2], generator=generator).where(place <= length_B, 0)
    return Inputs(policy.to(dtype), (policy + 0.5 * move).to(dtype), ids, (place > 0) & (place <= length_B))


def said(logits: Tensor, given: Inputs) -> Tensor:
    """(B, L - 1) the log-prob of each answer token, 0 elsewhere."""
    token = logits[:, :-1].log_softmax(-1).gather(-1, given.ids[:, 1:, None])[..., 0]
    return token * given.mask[:, 1:]


def ours(case: Case, given: Inputs) -> Found:
    objective, supervision = rooms.parse("objectives", case.objective), rooms.parse("supervision", case.supervision)
    half = len(LENGTHS) // 2
    weight = torch.zeros_like(given.policy[:, 1:, 0])
    for pair in range(half):
        rows = (pair, pair + half)
        tokens = tuple(AnswerTokens((5,) * LENGTHS[r], ((0, 1),) * LENGTHS[r], (1.0,) * LENGTHS[r]) for r in rows)
        marked = supervision(Example(Record("r", "?", (Answer("a"), Answer("b"))), (1,), tokens))
        for row, answer in zip(rows, marked.answers, strict=True):
            weight[row, : len(answer.weight)] = torch.tensor(answer.weight, dtype=weight.dtype)
    logits = given.policy.clone().requires_grad_()
    squares = logits[:, :-1].detach().softmax(-1).square().sum(-1)
    policy = LogProbs(said(logits, given), given.mask[:, 1:], weight, concentration=squares.log() * given.mask[:, 1:])
    reference = policy._replace(token=said(given.reference, given)) if "reference" in objective.needs else None
    facts = Pairs(tuple(map(str, range(half))), torch.ones(half), torch.full((half,), math.nan))
    terms = objective(policy, reference, facts, {}).terms.values()
    loss = sum((t.coefficient * t.value.sum() / t.count.sum() for t in terms), torch.zeros((), dtype=logits.dtype))
    return _differentiated(loss, logits)


def theirs(case: Case, given: Inputs) -> Found:
    logits = given.policy.clone().requires_grad_()
    loss = {"DPO": _dpo, "CPO": _cpo, "ORPO": _orpo}[case.trainer](case.settings, logits, given)
    return _differentiated(loss, logits)


def apart(case: Case, seed: int = 0) -> tuple[float, float]:
    """How far ours is from TRL's: |difference| of the losses, and of the gradients over the size of TRL's."""
    given = inputs(seed, case.dtype)
    found, expected = ours(case, given), theirs(case, given)
    gap = (found.gradient - expected.gradient).norm() / expected.gradient.norm()
    return abs(found.loss - expected.loss), gap.item()


def _differentiated(loss: Tensor, logits: Tensor) -> Found:
    loss.backward()
    assert logits.grad is not None
    return Found(loss.item(), logits.grad)


class _Silent(torch.nn.Module):
    """A model that is only asked what it is."""

    is_gradient_checkpointing = False


def _alone() -> SimpleNamespace:
    """What TRL asks of an accelerator, for one process."""
    return SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x, device=torch.device("cpu"))


def _dpo(settings: dict[str, Any], logits: Tensor, given: Inputs) -> Tensor:
    import trl

    def answer(these: Tensor) -> Any:
        token = said(these, given)
        squares = (2 * these[:, :-1].log_softmax(-1)).logsumexp(-1)
        other = torch.zeros_like(token)  # what TRL logs beside the loss
        return SimpleNamespace(
            log_probs=token, log_sum_sq_probs=squares, entropy=other, mean_logits=other, is_top1=other.bool()
        )

    types = settings["loss_type"] if isinstance(settings["loss_type"], list) else [settings["loss_type"]]
    trainer = SimpleNamespace(
        model=_Silent(),
        ref_model=lambda **_: answer(given.reference),
        args=SimpleNamespace(
            discopop_tau=settings.get("discopop_tau", 0.05),
            gradient_checkpointing=False,
            gradient_checkpointing_kwargs=None,
        ),
        accelerator=_alone(),
        aux_loss_enabled=False,
        ld_alpha=settings.get("ld_alpha"),
        precompute_ref_logps=False,
        f_divergence_type=settings.get("f_divergence_type", "reverse_kl"),
        f_alpha_divergence_coef=settings.get("f_alpha_divergence_coef", 0.5),
        loss_types=types,
        loss_weights=settings.get("loss_weights", [1.0] * len(types)),
        label_smoothing=settings.get("label_smoothing", 0.0),
        beta=settings["beta"],
        use_weighting=settings.get("use_weighting", False),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    batch = {"input_ids": given.ids, "attention_mask": (given.ids > 0).long(), "completion_mask": given.mask.long()}
    return trl.DPOTrainer._compute_loss(trainer, lambda **_: answer(logits), batch, False)


def _batch(given: Inputs) -> dict[str, Tensor]:
    """The columns that TRL's older collator makes."""
    labels = given.ids.where(given.mask, -100)
    columns = {"input_ids": given.ids, "attention_mask": (given.ids > 0).long(), "labels": labels}
    halves = [
        dict(zip(columns, parts, strict=True)) for parts in zip(*(c.chunk(2) for c in columns.values()), strict=True)
    ]
    return {
        f"{side}_{name}": x
        for side, half in zip(("chosen", "rejected"), halves, strict=True)
        for name, x in half.items()
    }


def _older(cls: Any, logits: Tensor, given: Inputs, **settings: Any) -> Tensor:
    trainer = SimpleNamespace(
        accelerator=_alone(),
        is_encoder_decoder=False,
        pad_token_id=0,
        padding_value=0,
        aux_loss_enabled=False,
        **settings,
    )
    for name in ("concatenated_inputs", "get_batch_logps"):
        setattr(trainer, name, getattr(cls, name))
    for name in ("concatenated_forward", "cpo_loss", "odds_ratio_loss"):
        if hasattr(cls, name):
            setattr(trainer, name, getattr(cls, name).__get__(trainer))
    model = lambda *_, **__: SimpleNamespace(logits=logits)  # noqa: E731
    return cls.get_batch_loss_metrics(trainer, model, _batch(given))[0]


def _cpo(settings: dict[str, Any], logits: Tensor, given: Inputs) -> Tensor:
    from trl.experimental.cpo import CPOTrainer

    asked = {"alpha": 0.0, "simpo_gamma": 0.5, "label_smoothing": 0.0, "cpo_alpha": 0.0, **settings}
    if asked["loss_type"] == "alphapo":  # its constructor does the same
        asked |= {"loss_type": "simpo", "cpo_alpha": 0.0}
    return _older(CPOTrainer, logits, given, **asked)


def _orpo(settings: dict[str, Any], logits: Tensor, given: Inputs) -> Tensor:
    from trl.experimental.orpo import ORPOTrainer

    return _older(ORPOTrainer, logits, given, **settings)
