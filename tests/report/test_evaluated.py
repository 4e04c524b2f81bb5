"""Families of figures as the page shows them."""

from __future__ import annotations

import pytest

import _evaluations
from _runs import Make
from grainline.report import evaluated, measured
from grainline.report.measured import Evaluation, Family


@pytest.fixture
def found(make: Make) -> Evaluation:
    run = make()
    _evaluations.write(run)
    return measured.evaluations(run)[0]


def test_families_stand_in_order_and_have_a_title(found: Evaluation) -> None:
    names = [family.name for family in evaluated.families(found)]
    assert names == ["preference", "displacement", "generation", "geometry", "forgetting"]
    assert evaluated.title(evaluated.families(found)[-1]) == "What was forgotten"


def test_a_family_that_says_nothing_has_no_heading(found: Evaluation) -> None:
    empty = Family("masks", {}, {"positions": []}, [])
    assert evaluated.families(found._replace(families=[*found.families, empty])) == evaluated.families(found)
    noted = empty._replace(notes=["Nothing was kept."])
    assert noted in evaluated.families(found._replace(families=[noted]))


def test_figures_have_their_interval_and_their_words(found: Evaluation) -> None:
    figures = {name: (value, about) for name, value, about in evaluated.figures(found, evaluated.families(found)[0])}
    accuracy = sum(row["rewards/accuracies"] for row in _evaluations.rows()) / _evaluations.PAIRS
    assert figures["rewards/accuracies"][0] == f"{accuracy:.3f} [0.550, 0.950]"
    assert "chosen answer has the larger reward" in figures["rewards/accuracies"][1]
    assert figures["against_reference/likelihood"][0] == "0.100 [0.050, 0.200], p = 0.004"
    assert not {"rows", "rewards/accuracies_low", "against_reference/likelihood_p"} & set(figures)


def test_tables_put_bounds_in_brackets_and_drawn_ones_last(found: Evaluation) -> None:
    tables = evaluated.tables(evaluated.families(found)[0])
    aspects = next(table for table in tables if table.title == "aspects")
    assert aspects.columns == ["aspect", "rows", "accuracy", "margin"]
    assert aspects.rows[0] == ["clear", "20", "0.700", "0.200 [0.100, 0.300]"]
    assert all(table.drawn for table in tables)
    (tasks,) = evaluated.tables(evaluated.families(found)[-1])
    assert (tasks.drawn, tasks.rows) == (False, [["arc_easy", "acc", "0.450", "0.440", "0.020"]])


def test_when_and_on_what(found: Evaluation) -> None:
    assert evaluated.subtitle(found) == "24 rows, measured 2026-11-25 05:00:00 UTC"
    facts = {**found.facts, "against": {"kind": "run", "name": "second"}, "time": None, "data": None}
    assert evaluated.subtitle(found._replace(facts=facts)) == "against second"
