"""Curves: what is drawn is what is in the files."""

from __future__ import annotations

from _runs import Make, lines, look, step
from grainline.report import read, series
from grainline.report.series import Chart, Curve, Point

LATE = [*map(step, range(1, 31)), look(30, 0.8)]


def charts(make: Make, **files: object) -> dict[str, Chart]:
    return {chart.key: chart for chart in series.single(read.run(make(**files)))}


def test_one_run(make: Make) -> None:
    found = charts(make)
    assert list(found) == ["loss", "accuracy", "margin", "rewards", "logps", "norm", "rate"]
    training, held_out = found["accuracy"].curves
    assert [point.x for point in held_out.points] == [0, 15, 30]
    assert held_out.points[-1] == (30, 0.8, 0.7000000000000001, 0.9)
    assert len(training.points) == len(training.faint) == 30
    assert found["norm"].line == 1.0
    moved = {curve.label: [point.y for point in curve.points] for curve in found["logps"].curves}
    assert moved == {"chosen, test": [0, 15, 30], "rejected, test": [0, -15, -30]}


def test_the_geometry_of_the_weights(make: Make) -> None:
    looks = [{"step": n, "geometry_angle": n / 100, "geometry_energy": -n / 1000} for n in (10, 20, 30)]
    found = charts(make, metrics_jsonl=lines([*map(step, range(1, 31)), *looks]))["geometry"]
    assert {curve.label: curve.points[-1][:2] for curve in found.curves} == {"angle": (30, 0.3), "energy": (30, -0.03)}


def test_the_moving_mean(make: Make) -> None:
    (loss,) = charts(make)["loss"].curves  # 30 steps: means of 3
    assert loss.points[0].y == (1 + 1 / 2) / 2
    assert abs(loss.points[1].y - (1 + 1 / 2 + 1 / 3) / 3) < 1e-12


def test_without_evaluation_training_alone_is_drawn(make: Make) -> None:
    found = charts(make, metrics_jsonl=lines(map(step, range(1, 31))), results_json='{"step": 30}')
    assert found["logps"].title == "Likelihood in training"
    assert [curve.label for curve in found["accuracy"].curves] == ["training"]


def test_without_a_look_at_the_start_nothing_is_said_of_it(make: Make) -> None:
    found = charts(make, metrics_jsonl=lines([look(15, 0.7), *LATE]))
    assert found["logps"].title == "Likelihood in training"
    assert "chosen" not in {chart.key for chart in series.overlaid(read.runs([make("a", metrics_jsonl=lines(LATE))]))}


def test_one_step_is_no_curve(make: Make) -> None:
    assert not charts(make, metrics_jsonl=lines([step(1)]), results_json=None)


def test_long_runs_are_thinned_and_keep_their_mean(make: Make) -> None:
    found = charts(make, metrics_jsonl=lines(map(step, range(1, 10_001))), results_json=None)
    (curve,) = found["margin"].curves
    assert len(curve.faint) <= series.MOST
    assert abs(sum(point.y for point in curve.faint) / len(curve.faint) - 500) < 5
    assert curve.points[-1].x == 10_000


def test_what_is_not_a_number_is_left_out(make: Make) -> None:
    odd = [step(1) | {"loss": float("nan")}, step(2) | {"loss": float("inf")}, step(3), step(4), step(5)]
    (loss,) = charts(make, metrics_jsonl=lines(odd), results_json=None)["loss"].curves
    assert [point.x for point in loss.points] == [3, 4, 5]


def test_several_runs_lie_on_each_other(make: Make) -> None:
    bare = make("b", metrics_jsonl=lines(map(step, range(1, 31))), results_json='{"step": 30}')
    found = {chart.key: chart for chart in series.overlaid(read.runs([make("a"), bare]))}
    assert [curve.label for curve in found["accuracy"].curves] == ["a"]
    assert [(curve.label, curve.style) for curve in found["loss"].curves] == [("a", 0), ("b", 1)]


def test_the_numbers_below_a_chart() -> None:
    often = Curve("often", 0, [Point(x, x) for x in range(100)])
    seldom = Curve("seldom", 1, [Point(7, 0.5, 0.25, 0.75)])
    columns, rows = series.table(Chart("x", "X", "", [often, seldom]))
    assert columns == ["step", "often", "seldom"]
    assert len(rows) < 40
    assert ["7", "7", "0.500 [0.250, 0.750]"] in rows
    assert rows[-1] == ["99", "99", ""]


def test_a_chart_in_one_sentence() -> None:
    chart = Chart("x", "X", "", [Curve("a", 0, [Point(0, 0.5), Point(4, 1.0)])])
    assert series.summary(chart) == "X: a from 0.500 at step 0 to 1.000 at step 4."
