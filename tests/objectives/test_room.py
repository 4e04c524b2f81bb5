"""The battery that every objective passes. A new file in ``objectives/`` joins by itself.

Each method is tried with its defaults and with all combinations of its options that are a choice of words
(``divergence=js``) except those that it refuses, and so is a sum of methods. What a method cannot promise it declares
beside its ``needs``::

    exceptions: ClassVar[dict[str, str]] = {"independence": "the reward's mean is taken over the batch"}

where the key is a test of this file without ``test_``. A declared exception is skipped with its reason printed; a key
that names no test fails.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor

from grainline import heads, rooms
from grainline.errors import SpecError
from grainline.objectives import _seam
from grainline.objectives._seam import Sum
from grainline.types import Dims, LogProbs, Losses, Pairs, Rows

ROOM = "objectives"
SUM = "dpo + 0.5*sft"
MIXED = "0.8*dpo + 0.4*bco + sft"  # of needs that differ: pairs, labels, and a mean over the step
KNOWN_NEEDS = frozenset(
    {"pairs", "labels", "reference", "segments", "kl", "concentration"}
)  # draw() makes tensors for these
KNOWN_NEEDS |= {"mismatched", "reference_activations", "reference_hidden", "reference_layers"}
PAIRS, TOKENS = 3, 6


# ------------------------------------------------------------------------------------------------ what is tried


def choices() -> list[str]:
    """Text of everything the battery tries."""
    found = [SUM, MIXED]
    for name in rooms.names(ROOM):
        cls = rooms.load(ROOM, name)
        hints = get_type_hints(cls, vars(sys.modules[cls.__module__]))
        words = {
            f.name: get_args(hints[f.name]) for f in dataclasses.fields(cls) if get_origin(hints[f.name]) is Literal
        }
        tried = [dict(zip(words, combination, strict=True)) for combination in itertools.product(*words.values())]
        found += sorted({rooms.text(value) for value in (made(name, options) for options in tried) if value})
    return found


def made(name: str, options: dict[str, str]) -> Any:
    """The method with these options; None where it refuses them together."""
    try:
        return rooms.resolve(ROOM, {"name": name, **options})
    except SpecError:
        return None


def columns(objective: Any) -> tuple[str, ...]:
    """The columns of the data that it reads numbers from."""
    return tuple(sorted(need.removeprefix("number ") for need in objective.needs if need.startswith("number ")))


def kinds(objective: Any) -> list[str]:
    """What its rows may be: pairs, labelled answers, or, where it asks for neither, also desirable answers alone."""
    for kind in ("pairs", "labels"):
        if kind in objective.needs:
            return [kind]
    return ["pairs", "labels", "desirable"]


class Case(NamedTuple):
    """What an objective is called with."""

    policy: LogProbs
    reference: LogProbs | None
    batch: Pairs | Rows
    heads: Mapping[str, Tensor] = MappingProxyType({})  # of its own modules; numbers that it carries

    def with_tokens(self, token: Tensor) -> Case:
        return self._replace(policy=self.policy._replace(token=token))


def draw(objective: Any, kind: str, dtype: torch.dtype = torch.float64) -> Case:
    """Random answers of different lengths, some tokens louder than others; the reference is near the policy."""
    strange = _seam.unknown(objective.needs) | (objective.needs & (_seam.NEEDS - KNOWN_NEEDS))
    assert not strange, f"the battery has no tensors for {sorted(strange)}: teach draw() to make them"
    generator = torch.Generator().manual_seed(0)
    rows = PAIRS if kind == "desirable" else 2 * PAIRS
    lengths = torch.tensor([TOKENS, 2, 4, 3, TOKENS, 1])[:rows, None]
    mask = torch.arange(TOKENS) < lengths
    weight = torch.randint(1, 4, mask.shape, generator=generator).to(dtype) / 2 * mask
    policy, move = (torch.rand(mask.shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    policy = (-2 * policy - 0.1) * mask
    reference = (policy + (move - 0.5) * mask).clamp(max=0)
    ids = tuple(f"row{i}" for i in range(rows if kind != "pairs" else PAIRS))
    plain = torch.ones(len(ids), dtype=dtype)
    named = columns(objective)
    numbers = torch.rand(len(ids), len(named), generator=generator, dtype=torch.float64).to(dtype) / 2
    batch = (
        Rows(ids, plain, torch.arange(rows) % 2 == 0)
        if kind == "labels"
        else Pairs(ids, plain, torch.linspace(0.5, 2.0, len(ids), dtype=dtype), columns=named, numbers=numbers)
    )
    if "mismatched" in objective.needs:  # as many rows again, in another order
        mask, weight, policy, reference = (torch.cat([x, x.flip(0)]) for x in (mask, weight, policy, reference))
    fine = (None, None)
    if "segments" in objective.needs:  # segments of two tokens, and a score for each
        segment = torch.where(mask, torch.arange(TOKENS) // 2, -1)
        score = torch.rand(rows, (TOKENS + 1) // 2, generator=generator, dtype=torch.float64).to(dtype)
        fine = (segment, score.masked_fill(torch.arange(score.shape[1]) > segment.max(-1, keepdim=True)[0], math.nan))
    ask = "reference" in objective.needs
    said = LogProbs(policy, mask, weight, *fine)
    if "kl" in objective.needs:
        said = said._replace(kl=torch.rand(mask.shape, generator=generator, dtype=torch.float64).to(dtype) * mask)
    if "concentration" in objective.needs:
        said = said._replace(concentration=-2 * torch.rand(mask.shape, generator=generator).to(dtype) * mask)
    against = LogProbs(reference, mask, weight, *fine) if ask else None
    if "reference_activations" in objective.needs and against is not None:  # the second family has one tensor fewer
        table = torch.rand(*mask.shape, 2, 2, generator=generator, dtype=torch.float64).to(dtype)
        table[..., 1, 1] = math.nan
        against = against._replace(activations=table)
    module = heads.build(objective, Dims(hidden=4, layers=2, vocabulary=9))
    outputs = {
        name: torch.rand(mask.shape, generator=generator, dtype=torch.float64).to(dtype) * mask
        for name in getattr(module, "names", ())
    }
    carried = {name: torch.tensor(value) for name, value in getattr(objective, "state", {}).items()}
    return Case(said, against, batch, outputs | carried)


def at_reference(case: Case) -> Case:
    """The case with its policy as reference: no divergence lies between them."""
    still = None if case.policy.kl is None else torch.zeros_like(case.policy.kl)
    activations = case.reference and case.reference.activations
    reference = case.policy._replace(kl=None, activations=activations)
    silent = {name: torch.zeros_like(value) for name, value in case.heads.items()}
    return case._replace(policy=case.policy._replace(kl=still), reference=reference, heads=silent)


def mapped(answers: LogProbs | None, change: Callable[[Tensor], Tensor]) -> LogProbs | None:
    """Every tensor of ``answers`` changed in the same way."""
    return answers and LogProbs(*(x if x is None else change(x) for x in answers))


def all_mapped(case: Case, change: Callable[[Tensor], Tensor]) -> Case:
    """The same of policy, reference and what the objective's own modules say."""
    heads = {name: change(x) if x.ndim else x for name, x in case.heads.items()}
    return Case(mapped(case.policy, change), mapped(case.reference, change), case.batch, heads)  # type: ignore[arg-type]


def losses(objective: Any, case: Case) -> Losses:
    return objective(case.policy, case.reference, case.batch, case.heads)


def reduced(found: Losses) -> Tensor:
    """The step's loss, as the trainer takes it from one batch."""
    return sum(
        (term.coefficient * term.value.sum() / term.count.sum() for term in found.terms.values()), torch.tensor(0.0)
    )


def gradient(objective: Any, case: Case) -> Tensor:
    token = case.policy.token.detach().requires_grad_()
    reduced(losses(objective, case.with_tokens(token))).backward()
    assert token.grad is not None
    return token.grad


def rearranged(case: Case, order: list[int]) -> Case:
    """The case with its pairs (or rows) in another order, or only some of them."""
    index = torch.tensor(order)
    twofold = len(case.policy.token) == 2 * len(case.batch.ids)
    rows = torch.cat([index, index + len(case.batch.ids)]) if twofold else index
    ids, *facts = case.batch
    facts = [fact[index] if isinstance(fact, Tensor) else fact for fact in facts]
    batch = type(case.batch)(tuple(ids[i] for i in order), *facts)
    return all_mapped(case, lambda x: x[rows])._replace(batch=batch)


def same(left: Losses, right: Losses, order: list[int] | None = None) -> None:
    """Equal values and counts, where ``right`` holds the rows of ``left`` in the given order."""
    assert left.terms.keys() == right.terms.keys()
    rows: Any = slice(None) if order is None else order
    for name, term in left.terms.items():
        torch.testing.assert_close(right.terms[name].value, term.value[rows], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(right.terms[name].count, term.count[rows], rtol=1e-9, atol=1e-12)
    if left.margin is not None:
        torch.testing.assert_close(right.margin, left.margin[rows], rtol=1e-9, atol=1e-12)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        tried = [(text, kind) for text in choices() for kind in kinds(rooms.parse(ROOM, text))]
        metafunc.parametrize(("text", "kind"), tried, ids=[f"{text}-{kind}" for text, kind in tried])
    elif "text" in metafunc.fixturenames:
        metafunc.parametrize("text", choices())


def exceptions(objective: Any) -> dict[str, str]:
    if isinstance(objective, Sum):
        return {key: why for _, term in objective.terms for key, why in exceptions(term).items()}
    return getattr(objective, "exceptions", {})


@pytest.fixture
def objective(text: str, request: pytest.FixtureRequest) -> Any:
    found = rooms.parse(ROOM, text)
    item = request.function.__name__.removeprefix("test_")
    if item in (declared := exceptions(found)):
        pytest.skip(f"DECLARED EXCEPTION {text}, {item}: {declared[item]}")
    return found


# ------------------------------------------------------------------------------------------------ what is promised


def test_the_battery_finds_every_file() -> None:
    files = [
        path for path in Path(_seam.__file__).parent.glob("*.py") if path.stem[0] != "_" and "_torch" not in path.stem
    ]
    assert {type(rooms.parse(ROOM, text)).__module__.split(".")[-1] for text in choices()} >= {
        path.stem for path in files
    }


def test_exceptions_name_items_of_this_battery(text: str) -> None:
    items = {name.removeprefix("test_") for name, _ in inspect.getmembers(sys.modules[__name__], inspect.isfunction)}
    assert set(exceptions(rooms.parse(ROOM, text))) <= items


def test_needs_are_known(objective: Any) -> None:
    assert not _seam.unknown(objective.needs)


def test_text_round_trip(objective: Any) -> None:
    assert rooms.parse(ROOM, rooms.text(objective)) == objective


def test_repr_round_trip(objective: Any) -> None:
    specs = [objective, *(term for _, term in getattr(objective, "terms", ()))]
    assert eval(repr(objective), {type(spec).__name__: type(spec) for spec in specs}) == objective


def test_shapes(objective: Any, kind: str) -> None:
    """One value and one count a row or pair; what is logged carries no gradient."""
    case = draw(objective, kind)
    case.policy.token.requires_grad_()
    found = losses(objective, case)
    assert found.terms
    for term in found.terms.values():
        assert term.value.shape == term.count.shape == (len(case.batch.ids),)
        assert not term.count.requires_grad
    logged = [*found.log.values()] + ([] if found.margin is None else [found.margin])
    assert not any(tensor.requires_grad for tensor in logged)
    if "pairs" in objective.needs:
        assert found.margin is not None
        assert found.margin.shape == (len(case.batch.ids),)


def test_purity(objective: Any, kind: str) -> None:
    """The same tensors in, the same out; nothing is kept and nothing is written to."""
    case, untouched = draw(objective, kind), draw(objective, kind)
    same(losses(objective, case), losses(objective, case))
    for answers, before in zip(case[:2], untouched[:2], strict=True):
        for x, y in zip(answers or (), before or (), strict=True):
            assert (x is None and y is None) or torch.equal(x.nan_to_num(), y.nan_to_num())


def test_padding(objective: Any, kind: str) -> None:
    """Columns outside the answers, on the left or on the right, are invisible."""
    case = draw(objective, kind)
    for pad in ((3, 0), (0, 3)):

        def wider(x: Tensor, pad: tuple[int, int] = pad, outside: float = 0) -> Tensor:
            return torch.nn.functional.pad(x, (*(0 for _ in range(2 * (x.ndim - 2))), *pad), value=outside)

        def padded(a: LogProbs | None, wider: Callable[..., Tensor] = wider) -> LogProbs | None:
            grown = mapped(a and a._replace(segment=None, score=None), wider)
            if a is None or grown is None or a.segment is None or a.score is None:
                return grown
            score = torch.nn.functional.pad(a.score, (0, 3), value=math.nan)  # segments are counted from 0
            return grown._replace(segment=wider(a.segment, outside=-1), score=score)

        heads = {name: wider(x) if x.ndim else x for name, x in case.heads.items()}
        other = Case(padded(case.policy), padded(case.reference), case.batch, heads)  # type: ignore[arg-type]
        same(losses(objective, case), losses(objective, other))


def test_permutation(objective: Any, kind: str) -> None:
    """The order of rows changes the order of losses and nothing else."""
    case, order = draw(objective, kind), [2, 0, 1]
    if kind == "labels":
        order += [5, 3, 4]
    same(losses(objective, case), losses(objective, rearranged(case, order)), order)


def test_independence(objective: Any, kind: str) -> None:
    """A row's loss does not depend on who else is in the batch."""
    case = draw(objective, kind)
    whole = losses(objective, case)
    for row in range(len(case.batch.ids)):
        same(whole, losses(objective, rearranged(case, [row])), [row])


def test_swap(objective: Any, kind: str) -> None:
    """With chosen and rejected exchanged the margin changes its sign."""
    if "pairs" not in objective.needs:
        return
    case = draw(objective, kind)
    order = [*range(PAIRS, 2 * PAIRS), *range(PAIRS)]
    margin, swapped = (losses(objective, c).margin for c in (case, all_mapped(case, lambda x: x[order])))
    torch.testing.assert_close(swapped, -margin, rtol=1e-9, atol=1e-12)


def test_constant(objective: Any, kind: str) -> None:
    """At policy = reference each loss is the constant that the method states, or (None) one that the row decides."""
    if "reference" not in objective.needs or isinstance(objective, Sum):
        return
    assert hasattr(objective, "constant"), "state `constant`, the loss at policy = reference"
    case = draw(objective, kind)
    found = losses(objective, at_reference(case))
    if objective.constant is not None:
        assert reduced(found).item() == pytest.approx(objective.constant, rel=1e-9)
        return
    other = case.with_tokens(2 * case.policy.token)  # no one number: then each row's own, whatever the model
    same(found, losses(objective, at_reference(other)))


def test_reference_gradient(objective: Any, kind: str) -> None:
    """No gradient reaches the reference."""
    case = draw(objective, kind)
    case.policy.token.requires_grad_()
    if case.reference is None:
        return
    case.reference.token.requires_grad_()
    reduced(losses(objective, case)).backward()
    assert case.reference.token.grad is None or not case.reference.token.grad.any()


def test_monotony(objective: Any, kind: str) -> None:
    """A desirable answer that becomes likelier lowers the loss; of labelled rows, an undesirable one never does."""
    case = draw(objective, kind)
    slope_B = gradient(objective, case).sum(-1)
    if isinstance(case.batch, Rows):
        slope_B = slope_B[: len(case.batch.ids)]
        assert (slope_B[case.batch.label] < 0).all()
        assert (slope_B[~case.batch.label] >= 0).all()
    else:
        assert (slope_B[:PAIRS] < 0).all()


def test_repetition(objective: Any, kind: str) -> None:
    """Weight is loudness: a token of weight 2 counts like the same token twice with weight 1."""
    case = draw(objective, kind)
    loud, twice = [], []
    for answers in case[:2]:
        if answers is None:
            loud.append(None), twice.append(None)
            continue
        ones = answers.mask.to(answers.weight.dtype)
        loud.append(answers._replace(weight=ones + ones * (torch.arange(TOKENS) == 0)))
        twice.append(mapped(answers._replace(weight=ones), lambda x: torch.cat([x[:, :1], x], 1)))
    heads = {name: torch.cat([x[:, :1], x], 1) if x.ndim else x for name, x in case.heads.items()}
    same(losses(objective, Case(*loud, case.batch, case.heads)), losses(objective, Case(*twice, case.batch, heads)))


def test_silence(objective: Any, kind: str) -> None:
    """A token of weight 0 has no influence and gets no gradient."""
    case = draw(objective, kind)
    quiet = case.policy.mask & (torch.arange(TOKENS) == 1)
    muted = [a and a._replace(weight=a.weight.masked_fill(quiet, 0)) for a in case[:2]]
    case = Case(*muted, case.batch, case.heads)
    other = case.with_tokens(torch.where(quiet, case.policy.token - 5, case.policy.token))
    if case.policy.kl is not None:
        kl = torch.where(quiet, case.policy.kl + 5, case.policy.kl)
        other = other._replace(policy=other.policy._replace(kl=kl))
    if case.policy.concentration is not None:
        concentration = torch.where(quiet, case.policy.concentration - 5, case.policy.concentration)
        other = other._replace(policy=other.policy._replace(concentration=concentration))
    same(losses(objective, case), losses(objective, other))
    assert not gradient(objective, case)[quiet].any()


def test_outside(objective: Any, kind: str) -> None:
    """What stands outside the answers (prompts, other answers, padding) has no influence and gets no gradient."""
    case = draw(objective, kind)
    filled = [a and a._replace(token=a.token.where(a.mask, -7.0)) for a in case[:2]]
    other = Case(*filled, case.batch, case.heads)
    same(losses(objective, case), losses(objective, other))
    assert not gradient(objective, other)[~case.policy.mask].any()


def test_counts(objective: Any, kind: str) -> None:
    """Counts follow from masks and weights alone, so they are known before any model has run."""
    case = draw(objective, kind)
    blank = [a and a._replace(token=torch.zeros_like(a.token)) for a in case[:2]]
    for name, term in losses(objective, Case(*blank, case.batch, case.heads)).terms.items():
        assert torch.equal(term.count, losses(objective, case).terms[name].count)
        assert (term.count >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_extremes(objective: Any, kind: str, dtype: torch.dtype) -> None:
    """Losses, margins and gradients are finite where the policy is 1000 nats from the reference, either way."""
    case = draw(objective, kind, dtype)
    rows = len(case.policy.token)
    for chosen, rejected in itertools.product((-1000.0, 1000.0), repeat=2):
        sign = torch.tensor([chosen] * PAIRS + [rejected] * (rows - PAIRS), dtype=dtype)[:, None]
        first = torch.arange(TOKENS) == 0
        low, high = sign.clamp(max=0) * first, (-sign).clamp(max=0) * first
        far = [a and a._replace(token=a.token + shift) for a, shift in zip(case[:2], (low, high), strict=True)]
        away = Case(*far, case.batch, case.heads)
        found = losses(objective, away)
        tensors = [term.value for term in found.terms.values()] + ([] if found.margin is None else [found.margin])
        assert all(tensor.isfinite().all() for tensor in [*tensors, *found.log.values(), gradient(objective, away)])


def test_gradient(objective: Any, kind: str) -> None:
    """The gradient is the slope of the loss, to the accuracy of finite differences in float64."""
    case = draw(objective, kind)

    def loss(token: Tensor) -> Tensor:
        return reduced(losses(objective, case.with_tokens(token)))

    token = case.policy.token.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (token,), eps=1e-6, atol=1e-7, rtol=1e-5)


def test_gradient_of_kl(objective: Any, kind: str) -> None:
    """The same by the divergence from the reference, where it is part of the loss."""
    case = draw(objective, kind)
    if case.policy.kl is None:
        return

    def loss(kl: Tensor) -> Tensor:
        return reduced(losses(objective, case._replace(policy=case.policy._replace(kl=kl))))

    assert torch.autograd.gradcheck(loss, (case.policy.kl.requires_grad_(),), eps=1e-6, atol=1e-7, rtol=1e-5)


def test_gradient_of_heads(objective: Any, kind: str) -> None:
    """The same by what its own modules say."""
    case = draw(objective, kind)
    for name, value in case.heads.items():
        if value.ndim:

            def loss(said: Tensor, name: str = name) -> Tensor:
                return reduced(losses(objective, case._replace(heads={**case.heads, name: said})))

            said = value.clone().requires_grad_()
            assert torch.autograd.gradcheck(loss, (said,), eps=1e-6, atol=1e-7, rtol=1e-5)


def test_without_heads(objective: Any, kind: str) -> None:
    """An evaluation of an exported adapter knows no modules; rewards and margin do without."""
    case = draw(objective, kind)
    with_them, without = losses(objective, case), losses(objective, case._replace(heads={}))
    assert (without.margin is None) == (with_them.margin is None)
    if without.margin is not None:
        assert torch.equal(without.margin, with_them.margin)
    for name in without.log:
        if name.startswith("rewards/"):
            assert torch.equal(without.log[name], with_them.log[name])


def test_a_coupled_objective_says_so(objective: Any, kind: str) -> None:
    """Who looks at other rows is given all rows of the step; who declares it, does."""
    coupled = getattr(objective, "coupled", False)
    assert coupled == ("independence" in exceptions(objective))
    assert coupled or "mismatched" not in objective.needs


def test_sum_adds_means() -> None:
    """``dpo + 0.5*sft`` is the mean over pairs plus half the mean over tokens; the margin is the first summand's."""
    both = rooms.parse(ROOM, SUM)
    case = draw(both, "pairs")
    expected = sum(c * reduced(losses(term, case)) for c, term in both.terms)
    found = losses(both, case)
    torch.testing.assert_close(reduced(found), expected, rtol=1e-12, atol=0)
    assert found.margin is not None
    assert torch.equal(found.margin, losses(both.terms[0][1], case).margin)
    assert not math.isclose(expected.item(), reduced(losses(both.terms[0][1], case)).item())
