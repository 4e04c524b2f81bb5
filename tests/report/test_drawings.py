"""What is drawn of an evaluation, computed again from its files."""

from __future__ import annotations

import json
from statistics import correlation, fmean

import pytest

import _evaluations
from _runs import Make
from grainline.report import charts, drawings, measured
from grainline.report.measured import Evaluation
from grainline.report.series import Chart


@pytest.fixture
def found(make: Make) -> Evaluation:
    run = make()
    _evaluations.write(run)
    return measured.evaluations(run)[0]


def moved(row: dict, role: str) -> float:
    return sum(row[role]["policy"]) - sum(row[role]["reference"])


def points(chart: Chart | None, label: str) -> list[tuple[float, float]]:
    assert chart is not None
    return [(p.x, p.y) for curve in chart.curves for p in curve.points if curve.label == label]


def test_length_bias_is_that_of_the_rows(found: Evaluation) -> None:
    chart = drawings.length_bias(found)
    rows = _evaluations.rows()
    each = [(row["chosen"]["tokens"] - row["rejected"]["tokens"], row["rewards/margins"]) for row in rows]
    assert sorted(points(chart, "won")) == sorted(pair for pair in each if pair[1] > 0)
    assert sorted(points(chart, "won") + points(chart, "lost or tied")) == sorted(each)
    assert chart is not None
    assert f"correlation {correlation(*zip(*each, strict=True)):+.2f}".replace("-", "−") in chart.note


def test_displacement_is_that_of_the_rows(found: Evaluation) -> None:
    each = [(moved(row, "chosen"), moved(row, "rejected")) for row in _evaluations.rows()]
    both = [pair for pair in each if max(pair) < 0]
    chart = drawings.moved(found)
    assert points(chart, "both fell") == both
    assert len(points(chart, "pairs")) == len(each) - len(both)
    assert chart is not None
    assert f"in {100 * len(both) / len(each):.1f} % of them both fell" in chart.note


def test_few_pairs(found: Evaluation) -> None:
    margins = sorted((row["rewards/margins"] for row in _evaluations.rows()), reverse=True)
    drawn = points(drawings.few_pairs(found), "margins")
    assert drawn[0] == (0, 0)
    assert drawn[-1] == pytest.approx((100, 100))
    assert drawn[3] == pytest.approx((100 * 3 / 24, 100 * sum(margins[:3]) / sum(margins)))


def test_positions_and_lengths_are_named(found: Evaluation) -> None:
    chart = drawings.positions(found)
    assert points(chart, "rejected")[0] == (0, -9 / 40)
    assert chart is not None
    assert chart.ticks == ["0–3", "4–7", "8+"]
    lengths = drawings.by_length(found)
    assert lengths is not None
    assert lengths.curves[0].points[1] == (1, 0.7, 0.5, 0.9)


def test_layers_are_means_with_their_range(found: Evaluation) -> None:
    change = next(chart for chart in drawings.layers(found) if chart.key == "layers-change")
    assert change.curves[0].points[5] == pytest.approx((5, fmean([0.05, 0.06]), 0.05, 0.06))
    assert [chart.key for chart in drawings.layers(found)] == [f"layers-{key}" for key in drawings.GEOMETRY]


def test_families_that_the_example_lacks(make: Make) -> None:
    level = {"obtained": 2.5, "obtained_low": 2.0, "obtained_high": 3.0, "answers": 4}
    tables = {
        "control": {"levels": [{"aspect": "clear", "requested": at} | level for at in (1, 5)]},
        "documents": {"places": [{"place": at, "rows": 3, "accuracy": 0.5 + at / 10} for at in (0, 1, 2)]},
        "masks": {"positions": [{"mask": "u", "from": a, "to": a + 4, "tokens": 9, "mean": a / 8} for a in (0, 4)]},
    }
    families = {name: {"figures": {}, "tables": table} for name, table in tables.items()}
    run = make()
    _evaluations.write(run, facts_json=json.dumps(_evaluations.facts() | {"families": families}))
    (found,) = measured.evaluations(run)
    (levels,), (places,), (masks,) = (drawings.of(name, found) for name in tables)
    assert levels.curves[0].points[1] == (5, 2.5, 2.0, 3.0)
    assert points(places, "accuracy") == [(0, 0.5), (1, 0.6), (2, 0.7)]
    assert points(masks, "u") == [(0, 0.0), (1, 0.5)]
    for chart in (levels, places, masks):
        assert "<path" in charts.draw(chart)


def test_runs_lie_on_each_other(found: Evaluation) -> None:
    drawn = {chart.key: chart for chart in drawings.overlaid([(0, "a", found), (2, "b", found)])}
    assert {"few", "positions", "calibration"} <= set(drawn)
    assert [(curve.label, curve.style) for curve in drawn["positions"].curves] == [("a", 0), ("b", 2)]
    assert "chosen answers" in drawn["positions"].note


def test_odd_tables_and_rows_draw_nothing(make: Make) -> None:
    odd: list[dict[str, object]] = [
        {},
        {"from": "a", "to": None, "accuracy": None, "said": "x", "role": 3, "change": "y", "tokens": []},
    ]
    names = {"preference": ("calibration", "lengths"), "displacement": ("positions", "margin_shares")}
    names |= {"geometry": ("layers",), "control": ("levels",), "documents": ("places",), "masks": ("positions",)}
    families = {name: {"figures": {}, "tables": dict.fromkeys(tables, odd)} for name, tables in names.items()}
    run = make()
    facts = json.dumps(_evaluations.facts() | {"families": families})
    _evaluations.write(run, facts_json=facts, rows_jsonl='{"chosen": {}, "rejected": {"policy": null}}\n{}\n')
    (found,) = measured.evaluations(run)
    assert not [chart for name in families for chart in drawings.of(name, found)]


def test_large_clouds_are_thinned(found: Evaluation) -> None:
    many = found._replace(rows=list(found.rows) * 100)
    chart = drawings.length_bias(many)
    assert chart is not None
    assert sum(len(curve.points) for curve in chart.curves) <= 2 * drawings.CLOUD
