"""Every objective that TRL has, against TRL's own code: value and gradient by the logits, loss type by loss type."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

from _trl import CASES, Case, apart

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("trl"), reason="TRL is NOT INSTALLED: parity is not tested"
)


def named(equal: bool) -> list:
    chosen = [case for case in CASES if bool(case.why) != equal]
    return [
        pytest.param(c, id=f"{c.objective}-{c.supervision}-{c.trainer}-{c.settings.get('loss_type')}") for c in chosen
    ]


@pytest.mark.parametrize("case", named(equal=True))
def test_equals_trl(case: Case) -> None:
    """Float64 to rounding; where TRL computes in float32, to its rounding."""
    for seed in range(3):
        value, gradient = apart(case, seed)
        assert value < (2e-6 if case.single else 1e-10)
        assert gradient < (2e-6 if case.single else 1e-10)


@pytest.mark.parametrize("case", named(equal=False))
def test_differs_on_purpose(case: Case) -> None:
    """If one of these becomes equal, TRL has changed and the pages are wrong."""
    assert max(apart(case)) > 1e-3


def test_every_loss_type_of_its_dpo_trainer_is_accounted_for() -> None:
    from trl import DPOTrainer

    source = inspect.getsource(DPOTrainer._compute_loss)
    theirs = set(re.findall(r'loss_type == "(\w+)"', source))
    assert len(theirs) > 10
    types = (case.settings["loss_type"] for case in CASES if case.trainer == "DPO")
    ours = {one for stated in types for one in (stated if isinstance(stated, list) else [stated])}
    assert theirs == ours


def test_the_page_is_what_the_script_writes() -> None:
    """docs/objectives/parity.md, all but the measured numbers, which rounding may change."""
    script = Path(__file__).parents[2] / "bench" / "parity.py"
    if not script.is_file():
        pytest.skip("bench/ IS NOT HERE: the parity page is not compared with what writes it")
    found = importlib.util.spec_from_file_location("parity", script)
    assert found is not None
    assert found.loader is not None
    parity = importlib.util.module_from_spec(found)
    found.loader.exec_module(parity)

    def words(page: str) -> str:
        return re.sub(r"-?\d[\d.]*(e[-+]\d+)?(?= \|)|with TRL .* on torch .*", "", page).strip()

    assert words(parity.PAGE.read_text(encoding="utf-8")) == words(parity.page()), "run python bench/parity.py"
