r"""What was forgotten: how well the model still reads plain text that has nothing to do with the preferences.

The text is cut into pieces of a few hundred tokens; each is read alone, and its first token is context only.

.. math:: \mathrm{ppl} = \exp\Bigl(-\tfrac1N \sum_t \log p(x_t \mid x_{<t})\Bigr), \qquad
    \text{bits a byte} = -\tfrac{1}{B \ln 2} \sum_t \log p(x_t \mid x_{<t})

over the N tokens of all pieces, and their B bytes of UTF-8: bits a byte can be compared between tokenizers.

The packaged text (``neutral.txt``) is a dozen passages in the public domain, each known to everybody, and so to every
model: its perplexity is low, and says nothing of how good a model is. What is of interest is the change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grainline.errors import DataError
from grainline.evaluation.drift import example
from grainline.evaluation.intervals import interval
from grainline.types import Example

PACKAGED = Path(__file__).with_name("neutral.txt")
PIECE = 256
"""Tokens of a piece, its first included."""

Row = Mapping[str, Any]


def pieces(tokenizer: Any, file: str = "", *, length: int = PIECE) -> list[tuple[Example, dict[str, Any]]]:
    """The text in ``file`` (empty: the packaged one) as examples, each with ``id``, and ``text``, ``tokens`` and
    ``bytes`` of what is predicted.

    Raises:
        DataError: the file is not there, is no UTF-8 text, or has fewer than two tokens.
    """
    path = Path(file).expanduser() if file else PACKAGED
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"unreadable: {error.strerror}.", where=str(path), instead="Give a text file.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error.reason}.", where=str(path), instead="Give a text file.") from error
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = read["input_ids"], read["offset_mapping"]
    found: list[tuple[Example, dict[str, Any]]] = []
    for start in range(0, len(ids), length):
        part, places = ids[start : start + length], offsets[start : start + length]
        if len(part) < 2:
            continue
        said = text[places[1][0] : places[-1][1]]
        name = str(len(found))
        line = {"id": name, "text": said, "tokens": len(part) - 1, "bytes": len(said.encode())}
        found.append((example(name, part[:1], part[1:]), line))
    if not found:
        raise DataError("there is no text to read.", where=str(path), instead="Give a few hundred words.")
    return found


def figures(lines: Sequence[Row], *, seed: int = 0) -> dict[str, float | None]:
    """Of lines with ``tokens``, ``bytes``, ``policy`` and perhaps ``reference`` (sums of log-probs, nats)."""
    tokens, size = sum(line["tokens"] for line in lines), sum(line["bytes"] for line in lines)
    now = sum(line["policy"] for line in lines)
    found: dict[str, float | None] = {
        "forgetting/perplexity": math.exp(-now / tokens),
        "forgetting/bits_per_byte": -now / math.log(2) / size,
    }
    if all("reference" in line for line in lines):
        found["forgetting/perplexity_before"] = math.exp(-sum(line["reference"] for line in lines) / tokens)
        found["forgetting/change"] = _rise(lines)
        bounds = interval(lambda some: _rise([lines[i] for i in some]), [line["id"] for line in lines], seed=seed)
        found["forgetting/change_low"], found["forgetting/change_high"] = bounds
    return found


def _rise(lines: Sequence[Row]) -> float:
    """Of the negative log-prob, nats a token."""
    return float(sum(line["reference"] - line["policy"] for line in lines) / sum(line["tokens"] for line in lines))
