"""Texts that nearly repeat each other, found without keeping them: MinHash of word pairs, one byte a hash.

A text is the set of its pairs of neighbouring words, without case and punctuation. Two texts that share a part J of
their pairs (Jaccard) agree in about J of their hashes (Broder 1997; datasketch's MinHash), plus 1/256 by chance, since
of each hash one byte is kept (Li and König 2010). Rows with equal bytes are found by sorting: datasketch's own index
(MinHashLSH) finds no more, keeps three to five kilobytes a row, and looks at every row of a bucket.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

HASHES = 32
"""Bytes of a text's sketch."""
ALIKE = 26
"""Hashes that must agree: two texts with J = 0.9 do in 96 of 100 cases, with J = 0.6 in 1."""
NEXT = 8
"""Of many rows in one bucket each is compared with so many that follow."""
_BLOCK = 65536  # pairs compared in one call

_SCRIPTS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # written without spaces: each character is a word
_WORD = re.compile(rf"[{_SCRIPTS}]|[^\W{_SCRIPTS}]+")


def words(text: str) -> list[str]:
    """The words of a text that says anything; of one without words, itself."""
    return _WORD.findall(text.casefold()) or [text.strip()]


def sketches(texts: Sequence[Sequence[str]], hashes: int = HASHES) -> np.ndarray:
    """(texts, hashes) uint8 of ``texts``, each a list of words."""
    import numpy as np
    from datasketch import MinHash

    # crc32 takes half the time of its own sha1, and datasketch stirs the bits of either.
    made = MinHash.generator(map(_pairs, texts), num_perm=hashes, hashfunc=zlib.crc32)
    smallest = np.array([one.hashvalues for one in made], dtype=np.uint32).reshape(-1, hashes)
    # A byte in which all 32 bits have a say: two words that agree in a hash's lowest byte do so in each of its hashes.
    return (smallest * np.uint32(0x9E3779B1) >> np.uint32(24)).astype(np.uint8)


def _pairs(text: Sequence[str]) -> list[bytes]:
    """As many as words: the first has nothing before it."""
    said = [word.encode(errors="replace") for word in text]
    return [b"%b %b" % pair for pair in zip([b"", *said], said, strict=False)]


def least(jaccard: float, hashes: int) -> int:
    """How many of ``hashes`` two texts agree in that share ``jaccard`` of their pairs, in the mean."""
    return round(hashes * (jaccard + (1 - jaccard) / 256))


def alike(*sketched: np.ndarray, least: int = ALIKE) -> Iterator[tuple[int, int]]:
    """Pairs (earlier, later) of rows that agree in ``least`` hashes of each sketch; each later row once, in order.

    ``sketched`` is one array, or two of which both must agree: a prompt's and an answer's. Rows are compared when four
    bytes agree somewhere, two neighbouring ones in either sketch (of 32 hashes, rows with J = 0.8 in both miss each
    other twice in ten thousand cases) or four in a single one, and then only with the :data:`NEXT` that follow in the
    same bucket: time and memory stay in proportion to the rows, however many of them are boilerplate.
    """
    import numpy as np

    rows, hashes = sketched[0].shape
    band = 4 // len(sketched)
    partner = np.full(rows, -1, dtype=np.int64)
    for at in range(0, hashes, band):
        key = np.ascontiguousarray(np.concatenate([sketch[:, at : at + band] for sketch in sketched], axis=1))
        key = key.view(np.uint32)[:, 0]
        order = np.argsort(key, kind="stable")
        key = key[order]
        for step in range(1, NEXT + 1):
            same = np.flatnonzero(key[step:] == key[:-step])
            for start in range(0, len(same), _BLOCK):
                part = same[start : start + _BLOCK]
                early, late = order[part], order[part + step]
                new = partner[late] < 0
                early, late = early[new], late[new]
                near = np.logical_and.reduce([(s[early] == s[late]).sum(1) >= least for s in sketched])
                partner[late[near]] = early[near]
    for row in np.flatnonzero(partner >= 0).tolist():
        yield int(partner[row]), row
