"""Numbers of tokens -> shades that everybody can tell apart.

Blue lies above zero and orange below, as in ColorBrewer's PuOr, which colour-blind people can read. A second cue goes
with it: above zero the line below a token is solid, below zero dashed, and thicker the farther away. Zero has neither.
The strongest shade stands for the 98th percentile of the sizes on the page, so that one odd token does not pale all
others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

STEPS = 4
"""Shades on either side of zero."""
SLOTS = "abcdefgh"
"""A letter for each quantity that a page can switch between; classes and attributes are called by it."""
QUANTILE = 0.98


def strongest(values: Iterable[float]) -> float:
    """The size that gets the strongest shade; 0 where there is nothing to shade.

    >>> strongest([0.0, -2.0, 1.0, float("nan")])
    2.0
    """
    sizes = sorted(abs(value) for value in values if math.isfinite(value))
    return sizes[math.ceil(QUANTILE * len(sizes)) - 1] or sizes[-1] if sizes else 0.0


def shade(value: float | None, limit: float) -> int:
    """From -STEPS to STEPS; 0 for what is hardly there (below an eighth of ``limit``), or is no number.

    >>> [shade(x, 1.0) for x in (0.1, 0.2, -0.5, 1.0, 7.0, float("nan"), None)]
    [0, 1, -2, 4, 4, 0, 0]
    """
    if value is None or not math.isfinite(value) or limit <= 0:
        return 0
    size = min(STEPS, math.floor(abs(value) / limit * STEPS + 0.5))
    return size if value > 0 else -size


def css_class(slot: str, value: float | None, limit: float) -> str:
    """The class that shades a token while its quantity is chosen; empty for no shade."""
    found = shade(value, limit)
    return f"{slot}{'p' if found > 0 else 'n'}{abs(found)}" if found else ""


def rules(slots: Sequence[str] = SLOTS) -> str:
    """The style sheet's part: a rule for each shade, which holds while the radio button of its quantity is chosen."""
    lines = []
    for sign, line in (("p", "solid"), ("n", "dashed")):
        for step in range(1, STEPS + 1):
            where = ", ".join(f"#pairs:has(#shade-{slot}:checked) .{slot}{sign}{step}" for slot in slots)
            lines.append(
                f"{where}, .swatch.{sign}{step} {{ background: var(--{sign}{step}); "
                f"border-bottom: {(step + 1) // 2 + 1}px {line} var(--{sign}-line); }}"
            )
    figures = [
        f"#pairs:has(#shade-{slot}:checked):has(#figures:checked) .t::after {{ content: attr(data-{slot}); }}"
        for slot in slots
    ]
    legends = ", ".join(f"#pairs:has(#shade-{slot}:checked) .legend-{slot}" for slot in slots)
    return "\n".join([*lines, *figures, f"{legends} {{ display: flex; }}"]) + "\n"


def run_rules(most: int) -> str:
    """The same for what is ``.of`` one of several runs: it is there while the radio button of its run is chosen."""
    others = ", ".join(
        f"#pairs:has(#run-{n}:checked) .of:not(.of-{n}), #pairs:has(#run-{n}:checked) .pair:not(.by-{n})"
        for n in range(1, most + 1)
    )
    return f"{others} {{ display: none; }}\n"
