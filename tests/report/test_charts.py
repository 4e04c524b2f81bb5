"""SVG that stands in the page: no outside, no colours of its own, the points where they belong."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from _runs import NASTY
from grainline.report import charts
from grainline.report.facts import Aspect
from grainline.report.series import Chart, Curve, Point

LINE = Curve("a", 0, [Point(0, 0.0), Point(1, 1.0), Point(2, 0.5)])


def test_nothing_from_outside_and_only_the_page_s_colours() -> None:
    held_out = Curve("b", 1, [Point(x, x / 2, x / 3, x) for x in range(3)], markers=True)
    svg = charts.draw(Chart("x", "X", "", [LINE, held_out], line=0.5))
    ElementTree.fromstring(svg)  # whole XML
    assert not re.search(r"https?:|<style|<script|<metadata|xlink|#[0-9a-f]{6}\b", svg)
    assert {"var(--ink)", "var(--rule)", "var(--c0)", "var(--c1)"} == set(re.findall(r"var\(--\w+\)", svg))
    assert not re.findall(r"\bid=\"(?![pm][0-9a-f]{10})", svg)


def test_points_stand_where_they_belong() -> None:
    svg = charts.draw(Chart("x", "X", "", [LINE], span=(0.0, 1.0)))
    path = next(d for d in re.findall(r'd="([^"]*)" clip-path[^>]*stroke="var\(--c0\)"', svg))
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, p)) for p in re.findall(r"[ML] (\S+) (\S+)", path)]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.03)
    assert (y2 - y0) / (y1 - y0) == pytest.approx(0.5, abs=1e-3)
    assert y1 < y0  # up


def test_the_same_curves_give_the_same_bytes() -> None:
    chart = Chart("x", "X", "", [LINE])
    assert charts.draw(chart) == charts.draw(chart)


@pytest.mark.parametrize("y", [0.0, 1e-12, -1e29, 1e29])
def test_flat_and_far(y: float) -> None:
    assert "<path" in charts.draw(Chart("x", "X", "", [Curve("a", 0, [Point(0, y), Point(1, y)])]))


def test_names_of_aspects_are_only_text() -> None:
    names = [NASTY, "$\\frac{1}$", "_hidden", "a" * 1000, ""]
    line = {"margin": 1.0, "margin_low": 0.5, "margin_high": 1.5}
    svg = charts.intervals([("after", [Aspect(name, {}, line) for name in names])])
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg
    assert "_hidden" in svg
    ElementTree.fromstring(svg)
    svg.encode()


def test_styles_differ_in_more_than_colour() -> None:
    told = {(charts.dashes(i), charts.glyph(i)) for i in range(charts.COLOURS)}
    assert len(told) == charts.COLOURS == len(charts.MARKERS)


def test_a_cloud_and_bars() -> None:
    cloud = Curve("pairs", 0, [Point(-1, 0.5), Point(2, -0.5)], markers=True)
    svg = charts.draw(Chart("c", "C", "", [cloud], kind="points", x="tokens", y="nats"))
    assert 'data-kind="points"' in svg
    assert "2 points; tokens against nats." in svg
    assert svg.count("<use ") == 2
    bars = [Curve("a", 0, [Point(0, 1.0, 0.5, 1.5), Point(1, -2.0, -3.0, -1.0)]), Curve("b", 1, [Point(0, 3.0)])]
    svg = charts.draw(Chart("b", "B", "", bars, kind="bars", x="tenth"))
    heights = [
        max(ys) - min(ys)
        for d in re.findall(r'd="([^"]*)" clip-path[^>]*fill="var\(--c\d\)"', svg)
        if (ys := [float(y) for _, y in re.findall(r"[ML] (\S+) (\S+)", d)])
    ]
    assert heights[1] / heights[0] == pytest.approx(2, abs=0.01)
    assert heights[2] / heights[0] == pytest.approx(3, abs=0.01)
