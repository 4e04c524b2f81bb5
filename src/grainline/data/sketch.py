"""Texts that nearly repeat each other, found without keeping them: MinHash of word pairs (rensa), one byte a hash.

A text is the set of its pairs of neighbouring words, without case and punctuation. Two texts that share a part J of
their pairs (Jaccard) agree in about J of their hashes (Broder 1997), plus 1/256 by chance, since of each hash one byte
is kept (Li and König 2010). Rows are brought together here and not by rensa's own index: a row has two texts that must
both be alike, and a crowd of equal rows must not cost its square.
"""

from __future__ import annotations

import itertools
import re
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
    from rensa import RMinHash

    # A mark before each text makes as many pairs as words, and at least one.
    pairs = [[f"{a} {b}".encode(errors="replace") for a, b in itertools.pairwise(["", *text])] for text in texts]
    found = RMinHash.digests_from_token_sets(pairs, num_perm=hashes, seed=0)
    return np.array(found, dtype=np.uint32).reshape(-1, hashes).astype(np.uint8)


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
