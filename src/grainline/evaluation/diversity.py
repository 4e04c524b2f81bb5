r"""How varied are answers? Numbers of texts alone; words are what stands between white space.

===============  ======================================================================================================
``distinct_n``   different n-grams of words over all n-grams, of all answers together (Li et al. 2016,
                 arXiv:1510.03055). Falls with the number and the length of the answers: compare equal numbers only
``self_bleu``    mean BLEU-4 of each answer with all others as its references, 0 to 100 (Zhu et al. 2018,
                 arXiv:1802.01886); smoothed and cut off as sacrebleu's ``sentence_bleu`` with effective order
``repetition``   mean share of an answer's 4-grams that it has said before; 0 for an answer of fewer than five words
``embedding``    mean cosine distance of two answers' vectors
===============  ======================================================================================================
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

N = 4


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Of no text with ``n`` words there is nothing to say (None)."""
    grams = [gram for text in texts for gram in _grams(text.split(), n)]
    return len(set(grams)) / len(grams) if grams else None


def repetition(texts: Sequence[str], n: int = N) -> float | None:
    shares = [1 - len(set(grams)) / len(grams) if (grams := _grams(text.split(), n)) else 0.0 for text in texts]
    return sum(shares) / len(shares) if shares else None


def self_bleu(texts: Sequence[str]) -> float | None:
    """Every text against all others; None of fewer than two."""
    if len(texts) < 2:
        return None
    words = [text.split() for text in texts]
    counts = [[Counter(_grams(w, n)) for w in words] for n in range(1, N + 1)]
    most = [_two_largest(by_text) for by_text in counts]
    lengths = [len(w) for w in words]
    scores = []
    for i in range(len(words)):
        matched, total = [], []
        for by_text, largest in zip(counts, most, strict=True):
            own = by_text[i]
            matched.append(sum(min(c, largest[gram][largest[gram][0] == (c, i)][0]) for gram, c in own.items()))
            total.append(sum(own.values()))
        others = lengths[:i] + lengths[i + 1 :]
        closest = min(others, key=lambda length: (abs(length - lengths[i]), length))
        scores.append(_bleu(matched, total, lengths[i], closest))
    return sum(scores) / len(scores)


def spread(vectors: Sequence[Sequence[float]]) -> float | None:
    """Mean over pairs of 1 - cosine; None of fewer than two."""
    import numpy as np

    if len(vectors) < 2:
        return None
    v = np.asarray(vectors, dtype=float)
    unit = v / np.linalg.norm(v, axis=1, keepdims=True)
    n = len(unit)
    return float(1 - (np.square(unit.sum(0)).sum() - n) / (n * (n - 1)))


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _two_largest(by_text: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """n-gram -> its largest count with whose it is, and the largest of the others, so that each text's references are
    looked up rather than counted again."""
    found: dict[tuple[str, ...], tuple[tuple[int, int], ...]] = {}
    for i, counts in enumerate(by_text):
        for gram, count in counts.items():
            first, second = found.get(gram, ((0, -1), (0, -1)))
            if count > first[0]:
                first, second = (count, i), first
            elif count > second[0]:
                second = (count, i)
            found[gram] = (first, second)
    return found


def _bleu(matched: Sequence[int], total: Sequence[int], length: int, reference: int) -> float:
    """Sentence BLEU, 0 to 100: an order without any match counts half of the one before; orders that the text is too
    short for do not count."""
    if not matched[0]:
        return 0.0
    logs, smooth = [], 1.0
    for hits, there in zip(matched, total, strict=True):
        if not there:
            break
        if not hits:
            smooth *= 2
        logs.append(math.log(hits / there if hits else 1 / (smooth * there)))
    brevity = 1.0 if length >= reference else math.exp(1 - reference / length)
    return 100 * brevity * math.exp(sum(logs) / len(logs))
