"""Uncertainty-penalised DPO: inferred schemes against arithmetic, and the promise: uncertain pairs push less."""

from __future__ import annotations

import math

import pytest

from _answers import GOLDEN, answers, loss, losses, slopes
from grainline import rooms
from grainline.errors import SpecError

STATED = GOLDEN["updpo"]["inputs"]


def on_golden(text: str, **numbers: list[float]) -> list[float]:
    policy = answers(STATED["chosen_logratio"], STATED["rejected_logratio"])
    found = losses(text, policy, answers([0.0] * 3, [0.0] * 3), **numbers)
    return found.terms["updpo"].value.tolist()


def golden(text: str) -> list[float]:
    return on_golden(text, chosen_uncertainty=STATED["u_chosen"], rejected_uncertainty=STATED["u_rejected"])


@pytest.mark.parametrize("text", sorted(GOLDEN["updpo"]["cases"]))
def test_the_inferred_schemes(text: str) -> None:
    assert golden(text) == pytest.approx(GOLDEN["updpo"]["cases"][text], rel=1e-8)


def test_the_default_is_dpo_times_the_factor() -> None:
    expected = [f * l for f, l in zip(GOLDEN["updpo"]["factor"], GOLDEN["updpo"]["dpo"], strict=True)]
    assert golden("updpo") == pytest.approx(expected, rel=1e-8)


def both(u: float) -> dict[str, float]:
    """Both answers alike."""
    return {"chosen_uncertainty": u, "rejected_uncertainty": u}


SCHEMES = ["loss", "margin", "answers", "add", "reward", "target"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("form", ["dpo", "ipo"])
def test_without_uncertainty_it_is_the_plain_loss(scheme: str, form: str) -> None:
    if (scheme, form) == ("target", "dpo"):
        with pytest.raises(SpecError, match="scheme=target needs a target"):
            rooms.parse("objectives", "updpo:scheme=target")
        return
    plain = "dpo" if form == "dpo" else "ipo:normalise=sum"
    found = loss(f"updpo:form={form},scheme={scheme}", 3.0, 1.0, chosen_uncertainty=0.0, rejected_uncertainty=0.0)
    assert found == pytest.approx(loss(plain, 3.0, 1.0), rel=1e-12)


@pytest.mark.parametrize("text", ["updpo", "updpo:scheme=margin", "updpo:scheme=answers", "updpo:scheme=add"])
def test_uncertain_pairs_push_less(text: str) -> None:
    """The abstract's promise, at the reference and for a pair that is wrong."""
    for h in (0.0, -5.0):
        pushes = [abs(slopes(text, h, 0.0, chosen_uncertainty=u, rejected_uncertainty=u)[0]) for u in (0.0, 0.5, 2.0)]
        assert pushes[0] > 1.2 * pushes[1] > 1.2 * pushes[2]


def test_the_reward_scheme_pushes_more_where_the_rejected_answer_is_uncertain() -> None:
    """The trap of the page: it follows from subtracting u in the RL objective."""
    sure, unsure = (
        slopes("updpo:scheme=reward", 0.0, 0.0, chosen_uncertainty=0.0, rejected_uncertainty=u) for u in (0, 1)
    )
    assert abs(unsure[0]) > abs(sure[0])


def test_margins_do_not_read_the_data() -> None:
    policy, reference = answers([1.0], [-0.5]), answers([0.0], [0.0])
    for scheme in SCHEMES[:-1]:
        found = losses(f"updpo:scheme={scheme}", policy, reference)  # held-out rows without the columns
        assert found.margin is not None
        assert found.margin.item() == pytest.approx(0.15)
        assert math.isnan(found.terms["updpo"].value.item())


def test_option_beta() -> None:
    assert loss("updpo:beta=0.2", 3.0, 1.0, **both(0.0)) == pytest.approx(loss("dpo:beta=0.2", 3.0, 1.0))


def test_option_form() -> None:
    assert golden("updpo:form=ipo") != pytest.approx(golden("updpo"))


def test_option_scheme() -> None:
    found = [golden(f"updpo:scheme={scheme}") for scheme in SCHEMES[:-1]]
    assert all(a != pytest.approx(b) for i, a in enumerate(found) for b in found[:i])
    assert loss("updpo:form=ipo,scheme=target", 3.0, 1.0, **both(0.5)) == pytest.approx((2 - 5 * math.exp(-1)) ** 2)


def test_option_uncertainty() -> None:
    """One number a pair is the sum of two."""
    summed = [a + b for a, b in zip(STATED["u_chosen"], STATED["u_rejected"], strict=True)]
    for scheme in ("loss", "margin", "add"):
        text = f"updpo:scheme={scheme}"
        assert on_golden(f"{text},uncertainty=pair", uncertainty=summed) == pytest.approx(golden(text))
    assert rooms.parse("objectives", "updpo:uncertainty=pair").needs == {"pairs", "reference", "number uncertainty"}
    with pytest.raises(SpecError, match="uncertainty of each answer"):
        rooms.parse("objectives", "updpo:scheme=reward,uncertainty=pair")


def test_option_tau() -> None:
    assert loss("updpo:tau=2", 3.0, 1.0, **both(1.0)) == pytest.approx(math.exp(-1) * loss("dpo", 3.0, 1.0))
    with pytest.raises(SpecError, match="tau is read"):
        rooms.parse("objectives", "updpo:scheme=add,tau=2")


def test_option_penalty() -> None:
    z = 0.1 * 2 + 3 * 0.4
    found = loss("updpo:scheme=add,penalty=3", 3.0, 1.0, **both(0.2))
    assert found == pytest.approx(math.log1p(math.exp(-z)))
    with pytest.raises(SpecError, match="penalty is read"):
        rooms.parse("objectives", "updpo:penalty=2")
