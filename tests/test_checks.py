"""What the loop refuses to pass over, named."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from _build import questions
from grainline.checks import check_finite, check_start, clip
from grainline.data.collate import collate
from grainline.errors import InvariantError, NonFiniteError
from grainline.types import LogProbs, Losses, Term


def said(value: float) -> LogProbs:
    token = torch.full((2, 3), value)
    return LogProbs(token, torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 3))


def of(*values: float) -> Losses:
    value = torch.tensor(values)
    return Losses({"x": Term(value, torch.ones_like(value))}, None, {})


def test_a_start_that_is_not_the_reference() -> None:
    objective = SimpleNamespace(constant=0.5)
    assert check_start(said(-1), said(-1), of(0.5), objective, 1e-3)["start/loss"] == 0.5
    with pytest.raises(InvariantError, match="differs from the reference by 1"):
        check_start(said(-1), said(-2), of(0.5), objective, 1e-3)
    with pytest.raises(InvariantError, match=r"the objective's constant 0\.5"):
        check_start(said(-1), said(-1), of(0.7), objective, 1e-3)


def test_a_prompt_that_is_read_from_the_start() -> None:
    """It is no reference, and says so; a number there must be nevertheless."""
    start = check_start(said(-1), said(-2), of(0.7), SimpleNamespace(constant=0.5), math.inf)
    assert start == {"start/policy_minus_reference": 1, "start/loss": pytest.approx(0.7), "start/constant": 0.5}
    with pytest.raises(InvariantError, match="differs from the reference by nan"):
        check_start(said(math.nan), said(-2), of(0.7), SimpleNamespace(constant=0.5), math.inf)


def test_rows_without_a_number_are_named() -> None:
    batch = collate(questions())
    check_finite(of(1, 2, 3, 4), batch, 0)
    with pytest.raises(NonFiniteError, match="step 3 from 2 rows: 1, 3"):
        check_finite(of(1, math.nan, 3, math.inf), batch, 2)


def test_a_gradient_without_a_number() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    accelerator = Accelerator(cpu=True)
    assert clip(accelerator, [parameter], 1.0, 0) == 5
    assert parameter.grad.norm().item() == pytest.approx(1.0, abs=1e-4)
    parameter.grad = torch.tensor([math.nan, 4.0])
    with pytest.raises(NonFiniteError, match="norm is nan at step 1"):
        clip(accelerator, [parameter], 0.0, 0)
