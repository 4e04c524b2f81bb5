"""What spans say of pieces, by hand."""

from __future__ import annotations

import math

from grainline.data.judged import as_wholes, aspects, by_pieces, pieces, silence
from grainline.types import Answer, Record, Span

TEXT = "The sky is blue. It is made of glass. You may look at it."  # pieces 0, 17, 38, 57


def record(*spans: Span, other: str = "It is blue.") -> Record:
    return Record("r", "p", (Answer(other), Answer(TEXT, spans)), weight=2.0)


def marks(found: tuple[tuple[float, ...], ...]) -> list[list[float | None]]:
    return [[None if math.isnan(x) else x for x in row] for row in found]


def test_a_sentence_with_an_error_is_wrong() -> None:
    """The mark covers a word of the second sentence and the blank before it, which touches nothing."""
    one = record(Span(16, 22, "fact", 0.0), Span(40, 43, "tone", 0.0))
    (found,) = by_pieces([one], ("fact", "tone"), unmarked="marked")
    assert (found.answer, found.prompt, found.weight) == (TEXT, "p", 2.0)
    assert [TEXT[a:b].strip() for a, b in found.pieces] == [
        "The sky is blue.", "It is made of glass.", "You may look at it.",
    ]  # fmt: skip
    assert marks(found.right) == [[1, 1], [0, 1], [1, 0]]


def test_silence_means_what_is_said_of_it() -> None:
    one = record(Span(19, 22, "fact", 0.0))
    assert marks(by_pieces([one], ("fact",))[0].right) == [[None], [0], [None]]
    assert [len(by_pieces([one], ("fact",), unmarked=u)) for u in ("unjudged", "marked", "right")] == [1, 1, 2]  # type: ignore[arg-type]
    corrected, faulty = by_pieces([one], ("fact",), unmarked="right")
    assert marks(corrected.right) == [[1]]
    assert marks(faulty.right) == [[1], [0], [1]]


def test_errors_alone_make_silence_speak() -> None:
    assert silence([record(Span(0, 3, "fact", 0.0), Span(4, 7, "tone", 0.0))]) == "marked"
    assert silence([record(Span(0, 3, "fact", 0.0), Span(4, 7, "fact", 0.5))]) == "unjudged"
    assert silence([record()]) == "unjudged"


def test_the_worst_judgement_counts() -> None:
    spans = Span(17, 30, "fact", 0.75), Span(25, 36, "fact", 0.25), Span(0, 10, "fact", 0.5)
    (found,) = by_pieces([record(*spans)], ("fact",))
    assert marks(found.right) == [[0.5], [0.25], [None]]


def test_pieces_of_the_data_s_own() -> None:
    """Spans that tile an answer are its pieces, also where they are no sentences."""
    tiles = tuple(Span(a, b, aspect, 1.0) for aspect in ("x", "y") for a, b in ((0, 19), (20, 57)))
    assert pieces(Answer(TEXT, tiles)) == ((0, 19), (20, 57))
    assert pieces(Answer(TEXT, tiles[:1])) == ((0, 17), (17, 38), (38, 57))
    assert pieces(Answer(" \n One.  ")) == ((0, 9),)


def test_answers_as_wholes() -> None:
    pair = record()
    assert [(one.answer, one.right, one.pieces) for one in as_wholes([pair])] == [
        ("It is blue.", ((1.0,),), ((0, 11),)),
        (TEXT, ((0.0,),), ((0, 57),)),
    ]
    labelled = [Record("r", "p", (Answer("x"),), label=label) for label in (True, False)]
    assert [one.right for one in as_wholes(labelled)] == [((1.0,),), ((0.0,),)]
    assert as_wholes(labelled)[0].group == as_wholes(labelled)[1].group


def test_all_aspects_sorted() -> None:
    assert aspects([record(Span(0, 3, "tone", 0.0), Span(0, 3, "fact", 0.0))]) == ("fact", "tone")
