"""Does a conditioned model do what it is told? Requested against obtained level, aspect by aspect.

======================  ===============================================================================================
figure                  meaning
======================  ===============================================================================================
control/ASPECT/error    mean of |obtained - requested|; only where the reward's scores have bounds, which are then laid
                        on the scale of the levels
control/ASPECT/slope    slope of obtained by requested level, least squares; 1: it does what it is told, 0: it does not
                        listen
control/ASPECT/rank     Spearman's rank correlation of the two, ties at their mean rank
======================  ===============================================================================================

An answer that the reward cannot judge is left out, and counted in the notes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from grainline.evaluation.intervals import interval, mean_interval
from grainline.evaluation.regression import slope

Row = Mapping[str, Any]


def figures(lines: Sequence[Row], *, seed: int = 0) -> dict[str, float | None]:
    """Of lines with ``aspect``, ``group`` (prompt), ``requested``, ``obtained`` (its own scale, None unjudged) and
    ``level`` (obtained on the scale of the levels, None without bounds)."""
    found: dict[str, float | None] = {}
    for aspect, there in by_aspect(lines).items():
        requested, obtained = [line["requested"] for line in there], [line["obtained"] for line in there]
        levels, groups = [line["level"] for line in there], [line["group"] for line in there]
        if all(level is not None for level in levels):
            errors = [abs(level - asked) for level, asked in zip(levels, requested, strict=True)]
            found[f"control/{aspect}/error"] = sum(errors) / len(errors)
            low, high = mean_interval(errors, groups, seed=seed)
            found |= {f"control/{aspect}/error_low": low, f"control/{aspect}/error_high": high}
            obtained = levels
        found[f"control/{aspect}/slope"] = slope(requested, obtained)
        low, high = interval(functools.partial(_slope_of, requested, obtained), groups, seed=seed, draws=300)
        found |= {f"control/{aspect}/slope_low": low, f"control/{aspect}/slope_high": high}
        found[f"control/{aspect}/rank"] = slope(*(_standard(ranks(values)) for values in (requested, obtained)))
    return found


def table(lines: Sequence[Row], *, seed: int = 0) -> list[dict[str, Any]]:
    found = []
    for aspect, there in by_aspect(lines).items():
        for asked in sorted({line["requested"] for line in there}):
            some = [line for line in there if line["requested"] == asked]
            values = [line["obtained"] if line["level"] is None else line["level"] for line in some]
            low, high = mean_interval(values, [line["group"] for line in some], seed=seed)
            line = {"aspect": aspect, "requested": asked, "answers": len(some), "obtained": sum(values) / len(values)}
            found.append(line | {"obtained_low": low, "obtained_high": high})
    return found


def by_aspect(lines: Sequence[Row]) -> dict[str, list[Row]]:
    """The judged lines of each aspect."""
    found: dict[str, list[Row]] = {}
    for line in lines:
        if line["obtained"] is not None:
            found.setdefault(line["aspect"], []).append(line)
    return found


def ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values share the mean of their ranks."""
    order = sorted(values)
    first = {value: i for i, value in reversed(list(enumerate(order, start=1)))}
    return [first[value] + (order.count(value) - 1) / 2 for value in values]


def _standard(values: Sequence[float]) -> list[float]:
    """Divided by their standard deviation, so that a slope is a correlation."""
    mean = sum(values) / len(values)
    size = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
    return [v / size if size else 0.0 for v in values]


def _slope_of(x: Sequence[float], y: Sequence[float], index: Any) -> float:
    found = slope([x[i] for i in index], [y[i] for i in index])
    return float("nan") if found is None else found
