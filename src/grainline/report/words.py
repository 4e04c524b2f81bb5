"""Numbers and strange text as people should see them.

Text of data may hold anything: escape sequences that paint a terminal, marks that turn the line round, what no encoding
can write. :func:`harmless` makes all of it visible; escaping for HTML or Markdown comes after.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Marks that change the direction of what follows."""
UNSEEN = "\u200b\u2028\u2029\u2060\ufeff\ufff9\ufffa\ufffb"
"""Characters without a shape, beside the joiners that Persian, Hindi and emoji need."""

_NAMED = {ord(mark): f"⟨U+{ord(mark):04X}⟩" for mark in TURNING + UNSEEN}
_NAMED |= {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: "\u2421"}
_NAMED |= {code: f"⟨U+{code:04X}⟩" for code in (*range(0x80, 0xA0), *range(0xE0000, 0xE0080))}
_NAMED |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")  # half a character: JSON can say it, UTF-8 cannot

_SPECIAL = re.compile(r"([\\`*<>|~$&]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|^[#+-](?=\s|#)|^\d+(?=[.)]\s))")
"""What Markdown would obey: brackets only where they make a link, underscores only at the edge of a word."""


def harmless(text: str) -> str:
    """``text`` with every control character and direction mark spelled out; line ends and tabs stay.

    >>> harmless("a\\x1b[31m \\u202eb")
    'a␛[31m ⟨U+202E⟩b'
    """
    return text.replace("\r\n", "\n").translate(_NAMED)


def cut(text: str, most: int) -> tuple[str, int]:
    """The beginning of ``text``, and how many characters are left out."""
    return (text, 0) if len(text) <= most else (text[:most], len(text) - most)


def inline(text: object) -> str:
    """``text`` within a line of Markdown: nothing in it is markup.

    >>> inline("a|b <script>")
    'a\\\\|b \\\\<script\\\\>'
    """
    return _SPECIAL.sub(r"\\\1", " ".join(harmless(str(text)).split()))


def fenced(text: str, language: str = "") -> str:
    """``text`` as a block of Markdown that it cannot leave."""
    text = harmless(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def pieces(text: str) -> list[tuple[bool, str]]:
    """``text`` cut at its backticks: (whether it is code, what it says).

    >>> pieces("try `this` now")
    [(False, 'try '), (True, 'this'), (False, ' now')]
    """
    return [(i % 2 == 1, part) for i, part in enumerate(text.split("`")) if part]


def sentence(text: str) -> str:
    """``text`` with a capital at its beginning and a full stop at its end.

    >>> sentence("so it is")
    'So it is.'
    """
    return text[:1].upper() + text[1:] + "."


def number(value: Any, digits: int = 3) -> str:
    """A number as tables show it: ``digits`` places below ten, fewer above; small ones with three figures.

    >>> number(0.8532), number(-287.47), number(5e-4), number(2.17e-5), number(4884480), number(float("nan"))
    ('0.853', '−287.5', '0.0005', '2.17e−05', '4,884,480', 'not a number')
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    if isinstance(value, float) and math.isnan(value):
        return "not a number"
    if isinstance(value, int):
        said = f"{value:,}" if abs(value) < 10**15 else f"{float(value):.2e}" if abs(value) < 10**300 else "huge"
    elif value and abs(value) < 0.01 and digits > 2:
        said = f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.2e}"
    elif abs(value) < 1e6:
        places = digits - (1 if abs(value) >= 10 else 0) - (1 if abs(value) >= 100 else 0)
        said = f"{value:,.{max(0, places)}f}"
    else:
        said = f"{value:.2e}"
    said = said.removeprefix("-") if not any(c in "123456789i" for c in said.partition("e")[0]) else said
    return said.replace("-", "−")


def whole(value: float) -> str:
    """A count, which files may hold as a float.

    >>> whole(109.0), whole(float("inf"))
    ('109', 'inf')
    """
    return number(round(value) if math.isfinite(value) else float(value))


def signed(value: float, digits: int = 3) -> str:
    """A difference, with its sign.

    >>> signed(0.33), signed(-2.0), signed(0.0)
    ('+0.330', '−2.000', '0.000')
    """
    return ("+" if value > 0 and number(value, digits).strip("0.") else "") + number(value, digits)


def interval(name: str, found: Mapping[str, Any], digits: int = 3) -> str:
    """A metric with its 95 % interval, where it has one that is not a point: ``0.853 [0.782, 0.915]``."""
    if name not in found:
        return "–"
    low, high = found.get(f"{name}_low"), found.get(f"{name}_high")
    bounds = f" [{number(low, digits)}, {number(high, digits)}]" if None not in (low, high) and low != high else ""
    return number(found[name], digits) + bounds


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(0.31), duration(42.2), duration(350.7), duration(7400)
    ('0.3 s', '42 s', '5 min 51 s', '2 h 3 min')
    """
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def size(count: int) -> str:
    """Bytes as people say them.

    >>> size(512), size(19593064)
    ('512 B', '19.6 MB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
