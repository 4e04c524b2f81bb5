"""KTO against golden numbers and the code of TRL's trainer, and what its reference point does."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from _token_level import GOLDEN, golden
from grainline.objectives.kto import KTO
from grainline.types import LogProbs, Losses, Pairs, Rows

CASES = GOLDEN["kto"]["cases"]
BASE = CASES["kto_beta0.1"]


def answers(total: Tensor) -> LogProbs:
    token = torch.stack([0.25 * total, 0.75 * total], 1)
    return LogProbs(token, torch.ones_like(token, dtype=torch.bool), torch.ones_like(token))


def rows(labels: list[bool], weight: list[float] | None = None) -> Rows:
    return Rows(tuple(map(str, range(len(labels)))), golden(weight or [1.0] * len(labels)), torch.tensor(labels))


def losses(spec: KTO, ratios: list[float] | Tensor, others: list[float], batch: Rows) -> Losses:
    h = torch.cat([torch.as_tensor(ratios, dtype=torch.float64), golden(others)])
    return spec(answers(h - 20), answers(torch.full_like(h, -20.0)), batch, {})


@pytest.mark.parametrize(
    ("case", "options", "others"),
    [
        ("kto_beta0.1", {}, BASE["kl_logratios"]),
        ("kto_beta0.1_negative_kl_clamped_to_0", {}, [-0.4, 0.1, -0.9, -0.2, 0.0, -0.6]),
        ("kto_beta0.1_desirable1.33", {"desirable_weight": 1.33}, BASE["kl_logratios"]),
    ],
)
def test_golden_losses(case: str, options: dict, others: list[float]) -> None:
    found = losses(KTO(**options), BASE["logratios"], others, rows(BASE["labels"])).terms["kto"].value
    torch.testing.assert_close(found, golden(CASES[case]["losses"]), rtol=1e-8, atol=0)


def test_by_hand() -> None:
    """h = 2 for a good answer and -1 for a bad one, mismatched 0.5 and 0.1: z_0 = 0.3, beta = 0.5."""
    found = losses(KTO(beta=0.5), [2.0, -1.0], [0.5, 0.1], rows([True, False]))
    expected = [1 - 1 / (1 + math.exp(-0.5 * 1.7)), 1 - 1 / (1 + math.exp(-0.5 * 1.3))]
    assert found.terms["kto"].value.tolist() == pytest.approx(expected, abs=1e-12)
    assert found.log["rewards/answer"].tolist() == pytest.approx([1.0, -0.5])
    assert found.log["kl"].tolist() == pytest.approx([0.5, 0.1])


def test_a_row_of_weight_two_is_the_row_twice() -> None:
    one = losses(KTO(), [2.0, -1.0], [0.5, 0.1], rows([True, False], [2.0, 1.0])).terms["kto"].value
    two = losses(KTO(), [2.0, 2.0, -1.0], [0.5, 0.5, 0.1], rows([True, True, False])).terms["kto"].value
    torch.testing.assert_close(one, two[1:], rtol=1e-12, atol=0)


def trl_loss(policy: Tensor, reference: Tensor, labels: list[bool], spec: KTO) -> Tensor:
    """The mean loss by TRL's installed KTOTrainer, given (2B, T) log-probs: own rows, then mismatched ones."""
    trl = pytest.importorskip("trl")
    count = len(labels)
    (own, other), (before, other_before) = policy.split(count), reference.split(count)
    said = SimpleNamespace(
        log_probs=own, entropy=torch.zeros_like(own), mean_logits=torch.zeros_like(own), aux_loss=None
    )
    width = own.shape[1] + 1
    same = {"gather_for_metrics": lambda x: x, "device": torch.device("cpu")}
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=SimpleNamespace(**same), aux_loss_enabled=False,
        calculate_KL=True, precompute_ref_logps=True, loss_type="kto", beta=spec.beta, _tp_size=1,
        desirable_weight=spec.desirable_weight, undesirable_weight=spec.undesirable_weight,
        _metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0, args=SimpleNamespace(),
        _compute_kl_logps=lambda model, batch: other.sum(-1),
    )  # fmt: skip
    inputs = {
        "input_ids": torch.zeros(count, width, dtype=torch.long),
        "attention_mask": torch.ones(count, width, dtype=torch.long),
        "completion_mask": torch.ones(count, width, dtype=torch.long),
        "label": torch.tensor(labels),
        "ref_logps": before.sum(-1),
        "ref_KL_logps": other_before.sum(-1),
    }
    model = SimpleNamespace(training=True)
    found = trl.KTOTrainer._compute_loss(trainer, _Called(model, said), inputs, False)
    return found[0] if isinstance(found, tuple) else found


class _Called:
    """A model that says what it is told to."""

    training = True

    def __init__(self, model: object, said: object) -> None:
        self.said = said

    def __call__(self, **_: object) -> object:
        return self.said


@pytest.mark.parametrize("options", [{}, {"beta": 0.4, "desirable_weight": 1.2, "undesirable_weight": 0.7}])
def test_equals_trl(options: dict) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = [True, False, False, True, True]
    policy, reference = (-2 * torch.rand(10, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    spec = KTO(**options)
    ours, theirs = policy.clone().requires_grad_(), policy.clone().requires_grad_()
    ones = torch.ones_like(policy)
    loss = spec(LogProbs(ours, ones.bool(), ones), LogProbs(reference, ones.bool(), ones), rows(labels), {})
    found = loss.terms["kto"].value.mean()
    expected = trl_loss(theirs, reference, labels, spec)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    found.backward(), expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    assert ours.grad is not None
    assert not ours.grad[5:].any()  # the mismatched answers are only looked at


def test_pairs_have_a_margin() -> None:
    """As an evaluation reads them: [chosen; rejected], and no mismatched answers."""
    pairs = Pairs(("a", "b"), torch.ones(2), torch.full((2,), math.nan))
    h = golden([1.0, 2.0, -1.0, 0.5])
    found = KTO()(answers(h), answers(torch.zeros_like(h)), pairs, {})
    assert found.margin is not None
    assert found.margin.tolist() == pytest.approx([0.2, 0.15])


def test_option_beta() -> None:
    half, whole = (losses(KTO(beta=b), [2.0], [0.0], rows([True])).log["rewards/answer"] for b in (0.1, 0.2))
    torch.testing.assert_close(2 * half, whole)


def test_option_desirable_weight() -> None:
    found = losses(KTO(desirable_weight=3.0), [0.0, 0.0], [0.0, 0.0], rows([True, False])).terms["kto"].value
    assert found.tolist() == [1.5, 0.5]
    assert KTO(desirable_weight=3.0).constant is None


def test_option_undesirable_weight() -> None:
    found = losses(KTO(undesirable_weight=3.0), [0.0, 0.0], [0.0, 0.0], rows([True, False])).terms["kto"].value
    assert found.tolist() == [0.5, 1.5]
