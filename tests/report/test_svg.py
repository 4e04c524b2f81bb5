"""matplotlib's drawings as part of a page: attributes instead of styles, and numbers that a pointer reads."""

from __future__ import annotations

import builtins
import re
from typing import Any

import pytest

from _runs import NASTY
from grainline.errors import UserError
from grainline.report import charts
from grainline.report.series import Chart, Curve, Point


def test_no_style_attribute_is_left() -> None:
    svg = charts.draw(Chart("x", "X", "", [Curve("a", 1, [Point(0, 0.0), Point(1, 1.0)])]))
    assert " style=" not in svg
    assert 'stroke-dasharray="' in svg
    assert re.search(r'<text font-size="\dpx"', svg)


def test_a_pointer_reads_the_numbers_where_they_are_drawn() -> None:
    points = [Point(0, 0.125), Point(10, 0.5, 0.25, 0.75), Point(123456, 1.0)]
    svg = charts.draw(Chart("x", "X", "", [Curve("a", 0, points)], span=(0.0, 1.0)))
    assert 'data-x="step"' in svg
    (said,) = re.findall(r'data-points="([^"]*)"', svg)
    assert said == "0,0.125 10,0.5,0.25,0.75 123456,1"
    x0, x1, left, right, y0, y1, bottom, top = map(float, re.search(r'data-axes="([^"]*)"', svg)[1].split())  # type: ignore[index]
    path = next(d for d in re.findall(r'd="([^"]*)" clip-path[^>]*stroke="var\(--c0\)"', svg))
    drawn = [tuple(map(float, p)) for p in re.findall(r"[ML] (\S+) (\S+)", path)]
    for (x, y, *_), (across, up) in zip(points, drawn, strict=True):
        assert left + (x - x0) / (x1 - x0) * (right - left) == pytest.approx(across, abs=0.05)
        assert bottom + (y - y0) / (y1 - y0) * (top - bottom) == pytest.approx(up, abs=0.05)


def test_labels_are_only_text() -> None:
    svg = charts.draw(Chart("x", NASTY, "", [Curve(NASTY, 0, [Point(0, 0.0), Point(1, 1.0)])], x=NASTY, y=NASTY))
    assert "<script" not in svg
    assert svg.count("&lt;script&gt;") >= 4


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"matplotlib, which is not installed.*pip install 'grainline\[report\]'"):
        charts.draw(Chart("x", "X", "", [Curve("a", 0, [Point(0, 0.0), Point(1, 1.0)])]))
