"""Which library cuts answers into sentences as their writers did? Ours beside five others, on the packaged `house`.

    python bench/segmentation.py                    a Markdown table, in half a minute
    python bench/segmentation.py --wrong ours       where a segmenter and the writers disagree, instead

Wants `pip install sentencex pysbd syntok blingfire nltk`; what is absent is skipped with a sentence. The rest is in
bench/README.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from grainline.data.sentences import CODE, sentences

HOUSE = Path(__file__).parents[1] / "src/grainline/data/packaged/house"
Pieces = list[tuple[int, str]]  # where a piece begins, and the piece as the segmenter hands it out
Cutter = Callable[[str], Pieces]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wrong", choices=SEGMENTERS, help="print the cuts that differ from the writers' instead")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times all is cut; the fastest counts")
    options = parser.parse_args()
    gold = answers()
    if options.wrong:
        try:
            differences(gold, whole_code(SEGMENTERS[options.wrong].make()))
        except (ImportError, LookupError) as absent:
            raise SystemExit(skipped(options.wrong, absent)) from None
        return
    inner = sum(len(cuts) for cuts in gold.values())
    fenced = sum(bool(CODE.search(text)) for text in gold)
    print(
        f"{len(gold)} answers, {inner} inner boundaries, {sum(map(len, gold))} characters; {fenced} with fenced code\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for name, segmenter in SEGMENTERS.items():
        try:
            cut = segmenter.make()
        except (ImportError, LookupError) as absent:
            print(skipped(name, absent), file=sys.stderr)
            continue
        score, with_code_whole = scored(gold, cut), scored(gold, whole_code(cut))
        whole = [f"{share:.3f}" for share in (with_code_whole.f1, with_code_whole.exact)]
        lossless = sum("".join(piece for _, piece in cut(text)) == text for text in gold) / len(gold)
        speed = f"{characters_a_second(gold, cut, options.rounds):.1e}"
        values = (*(f"{share:.3f}" for share in score), *whole, f"{lossless:.3f}", speed)
        print(f"| {' | '.join((name, *published(segmenter.package), *values))} |", flush=True)


COLUMNS = (
    *("segmenter", "version", "released", "licence", "precision", "recall", "F1", "exact"),
    *("F1, code whole", "exact, code whole", "lossless", "characters/s"),
)


def skipped(name: str, absent: Exception) -> str:
    return f"{name} is skipped: {absent}."


def answers() -> dict[str, set[int]]:
    """Every distinct answer of house and its writer's inner boundaries."""
    gold: dict[str, set[int]] = {}
    for part in ("train", "test"):
        for row in map(json.loads, (HOUSE / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()):
            for side in ("chosen", "rejected"):
                gold[row[side]] = boundaries(row[side], (start for start, _ in row[f"{side}_segments"]))
    return gold


def boundaries(text: str, cuts: Iterable[int]) -> set[int]:
    """Inner cuts, each moved to the next character that is no white space: whose the white space is does not count."""

    def word(at: int) -> int:
        return len(text) - len(text[at:].lstrip())

    return {word(at) for at in cuts} - {word(0), len(text)}


class Score(NamedTuple):
    precision: float
    recall: float
    f1: float
    exact: float  # share of answers without a difference


def scored(gold: dict[str, set[int]], cut: Cutter) -> Score:
    found = {text: boundaries(text, (start for start, _ in cut(text))) for text in gold}
    right = sum(len(found[text] & cuts) for text, cuts in gold.items())
    mine, theirs = (sum(map(len, cuts.values())) for cuts in (found, gold))
    exact = sum(found[text] == cuts for text, cuts in gold.items()) / len(gold)
    return Score(right / mine, right / theirs, 2 * right / (mine + theirs), exact)


def differences(gold: dict[str, set[int]], cut: Cutter) -> None:
    for text, cuts in gold.items():
        found = boundaries(text, (start for start, _ in cut(text)))
        for at in sorted(cuts ^ found):
            print("missed" if at in cuts else "extra ", repr(text[max(0, at - 40) : at]), "|", repr(text[at : at + 30]))


def characters_a_second(gold: dict[str, set[int]], cut: Cutter, rounds: int) -> float:
    """Of CPU time, all threads: a busy machine does not count."""
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        for text in gold:
            cut(text)
        seconds.append(time.process_time() - began)
    return sum(map(len, gold)) / min(seconds)


def published(package: str) -> tuple[str, str, str]:
    """The installed version, and from PyPI when it came out and under which licence ("?" without a network)."""
    if not package:
        return "", "", "none seen"
    version = importlib.metadata.version(package)
    try:
        with urllib.request.urlopen(f"https://pypi.org/pypi/{package}/json", timeout=20) as answer:
            page = json.load(answer)
    except OSError:
        return version, "?", "?"
    kinds = [kind.rsplit(" :: ", 1)[1] for kind in page["info"]["classifiers"] if kind.startswith("License :: ")]
    licence = page["info"].get("license_expression") or (kinds or [page["info"]["license"] or "?"])[0]
    short = licence.removesuffix(" License").removesuffix(" Software")
    files = page["releases"].get(version, [])
    return version, min((file["upload_time"][:10] for file in files), default="?"), short


def whole_code(cut: Cutter) -> Cutter:
    """The same segmenter, shown only what stands outside fenced code, as ours is."""

    def fenced(text: str) -> Pieces:
        pieces, at = [], 0
        for code in CODE.finditer(text):
            pieces += [(at + start, piece) for start, piece in cut(text[at : code.start()])]
            pieces.append((code.start(), code.group()))
            at = code.end()
        return pieces + [(at + start, piece) for start, piece in (cut(text[at:]) if text[at:] else [])]

    return fenced


def placed(pieces: list[str]) -> Pieces:
    """For those who say what the pieces are but not where: one after the other."""
    return list(zip(itertools.accumulate(map(len, pieces), initial=0), pieces, strict=False))


def between(text: str, cuts: Iterable[int]) -> Pieces:
    return [(a, text[a:b]) for a, b in itertools.pairwise(cuts)]


def ours() -> Cutter:
    import sentencex  # noqa: F401  (absent: known before the first answer)

    return lambda text: between(text, sentences(text))


def sentencex() -> Cutter:
    from sentencex import segment

    return lambda text: placed(segment("en", text))


def pysbd() -> Cutter:
    from pysbd import Segmenter

    segmenter = Segmenter(language="en", clean=False, char_span=True)
    return lambda text: [(span.start, span.sent) for span in segmenter.segment(text)]


def syntok() -> Cutter:
    from syntok.segmenter import analyze

    return lambda text: [
        (tokens[0].offset, "".join(map(str, tokens))) for paragraph in analyze(text) for tokens in paragraph
    ]


def blingfire() -> Cutter:
    from blingfire import text_to_sentences_and_offsets

    return lambda text: [(a, text[a:b]) for a, b in text_to_sentences_and_offsets(text)[1]]


def punkt() -> Cutter:
    from nltk.tokenize import PunktTokenizer

    try:
        tokenizer = PunktTokenizer("english")
    except LookupError as absent:
        raise LookupError(
            "NLTK is here without its punkt_tab data; bench/README.md says where it is to be had"
        ) from absent
    return lambda text: [(a, text[a:b]) for a, b in tokenizer.span_tokenize(text)]


def rules() -> Cutter:
    """The rule list of a re-implementation of 2D-DPO, rebuilt from a description of it, not from its code.

    Pieces are slices of the text, so its last resort (one piece where they do not add up) is never needed.
    """
    quote, mark = "[\"'”’]", "[.!?！？]"
    protected = re.compile(r"(?<=\d)\.(?=\d)|(?:(?<=^\d)|(?<=^\d\d))\.(?= )", re.MULTILINE)  # 3.14, the 1. of a list
    cut_after = re.compile(
        rf"\.(?=[ \n])|[!?！？](?!{quote})|{mark}{quote}|\.\.\.+|…+|:\n+|\n(?=\d+_ )",
    )

    def cut(text: str) -> Pieces:
        cuts, at = {0, len(text)}, 0
        for code in re.finditer(r"```.*?```|\Z", text, re.DOTALL):
            prose = protected.sub("_", text[at : code.start()])
            cuts |= {at + found.end() for found in cut_after.finditer(prose)} | {code.start(), code.end()}
            at = code.end()
        return between(text, sorted(cuts))

    return cut


class Segmenter(NamedTuple):
    make: Callable[[], Cutter]
    package: str = ""  # on PyPI


SEGMENTERS = {
    "ours": Segmenter(ours, "sentencex"),
    "sentencex": Segmenter(sentencex, "sentencex"),
    "pysbd": Segmenter(pysbd, "pysbd"),
    "syntok": Segmenter(syntok, "syntok"),
    "blingfire": Segmenter(blingfire, "blingfire"),
    "punkt": Segmenter(punkt, "nltk"),
    "rules": Segmenter(rules),
}

if __name__ == "__main__":
    main()
