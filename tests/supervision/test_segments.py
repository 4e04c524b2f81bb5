"""Segments: spans as they are, sentences between them, aspects by their weights, tokens by their characters."""

from __future__ import annotations

import pytest

from grainline.errors import DataError, SpecError
from grainline.rooms import resolve
from grainline.supervision.segments import Segments
from grainline.types import NEUTRAL, Answer, AnswerTokens, Example, Record, Span

TEXT = "Boil water. Add salt, then wait. Serve."


def words(text: str) -> AnswerTokens:
    """A token for each word, the space before it included, as byte-level tokenizers write them; and an end."""
    starts = [0, *(i for i, char in enumerate(text) if char == " " and i)]
    offsets = [*zip(starts, [*starts[1:], len(text)], strict=True), (len(text), len(text))]
    return AnswerTokens(tuple(range(len(offsets))), tuple(offsets), (1.0,) * len(offsets))


def mark(segments: Segments, *answers: Answer, label: bool | None = None) -> tuple[AnswerTokens, ...]:
    example = Example(Record("r", "p", answers, label=label), (1,), tuple(words(a.text) for a in answers))
    return segments(example).answers


def pair(*spans: Span, text: str = TEXT, **options: object) -> AnswerTokens:
    """The chosen answer of a pair, marked."""
    return mark(Segments(**options), Answer(text, spans), Answer("No."))[0]


def test_spans_are_used_as_they_are_and_sentences_fill_the_rest() -> None:
    """Words: Boil water. | Add salt, | then | wait. | Serve. The span takes "salt, then" out of its sentence."""
    wrong = Span(16, 26, "correctness", 0.0)
    assert TEXT[16:26] == "salt, then"
    assert [TEXT[s.start : s.stop] for s in Segments().pieces(Answer(TEXT, (wrong,)))] == [
        "Boil water. ", "Add ", "salt, then", " wait. ", "Serve.",
    ]  # fmt: skip
    found = pair(wrong)
    assert found.segment == (0, 0, 1, 2, 2, 3, 4, 4)  # the end of turn goes with "Serve."
    assert found.score == (NEUTRAL, NEUTRAL, 0.0, NEUTRAL, NEUTRAL)


def test_aspects_are_combined_by_their_weights() -> None:
    spans = (Span(0, 11, "safety", 1.0), Span(0, 11, "clarity", 0.25), Span(11, len(TEXT), "clarity", 0.75))
    assert pair(*spans).score == (0.625, 0.75)
    assert pair(*spans, weights={"safety": 3, "clarity": 1}).score == (pytest.approx((3 + 0.25) / 4), 0.75)
    assert pair(*spans, weights={"safety": 1}).score == (1.0, NEUTRAL)  # nobody judged the safety of the rest
    twice = (*spans, Span(0, 11, "safety", 0.0))  # two judges, one aspect: their mean
    assert pair(*twice, weights={"safety": 1}).score == (0.5, NEUTRAL)


def test_overlapping_spans_are_cut_at_their_borders() -> None:
    text = "aaa bbb ccc ddd"
    found = pair(Span(0, 11, "x", 1.0), Span(4, 15, "y", 0.0), text=text)
    assert found.segment == (0, 1, 1, 2, 2)
    assert found.score == (1.0, 0.5, 0.0)


def test_a_span_inside_one_token_is_not_lost() -> None:
    found = pair(Span(7, 8, "spelling", 0.0), text="All of theese words.")
    assert "All of theese words."[7:8] == "t"
    assert found.segment == (0, 0, 1, 2, 2)
    assert found.score == (NEUTRAL, 0.0, NEUTRAL)


def test_weights_are_loud_on_good_sentences_of_one_side_and_on_faults_of_the_other() -> None:
    good = Answer("So. No.", (Span(0, 3, "", 0.75), Span(3, 7, "", 1.0)))
    chosen, rejected = mark(Segments(), good, good)
    assert chosen.weight == (0.75, 1.0, 1.0)
    assert rejected.weight == (0.25, 0.0, 0.0)
    assert chosen.score == rejected.score == (0.75, 1.0)
    for label, weight in ((True, chosen.weight), (False, rejected.weight)):
        assert mark(Segments(), good, label=label)[0].weight == weight


def test_one_answer_is_one_segment() -> None:
    """by=answer, the baseline without places: the score is the mean over tokens."""
    spans = (Span(0, 11, "a", 1.0), Span(12, 32, "a", 0.0), Span(33, len(TEXT), "a", 0.5))
    found = pair(*spans, by="answer")
    assert found.segment == (0,) * 8
    assert found.score == (pytest.approx((2 * 1.0 + 4 * 0.0 + 2 * 0.5) / 8),)


def test_option_normalise() -> None:
    spans = (Span(0, 11, "a", 0.2), Span(12, 32, "a", 0.4), Span(33, len(TEXT), "a", 0.8))
    assert pair(*spans).score == (0.2, 0.4, 0.8)
    mean = pair(*spans, normalise="mean")
    level = (2 * 0.2 + 4 * 0.4 + 2 * 0.8) / 8
    assert mean.score == pytest.approx((0.2 / level, 0.4 / level, 0.8 / level))
    assert sum(mean.weight) / len(mean.weight) == pytest.approx(1.0)
    silent = pair(Span(0, len(TEXT), "a", 0.0), normalise="mean")
    assert silent.score == (0.0,)  # nothing to divide by


def test_option_by() -> None:
    assert pair(Span(0, 11, "a", 1.0)).score != pair(Span(0, 11, "a", 1.0), by="answer").score


def test_option_weights() -> None:
    assert Segments(weights={"safety": 2.0, "tone": 0}).needs == {"spans", "aspect safety"}
    for weights in ({"a": 0.0}, {"a": -1.0, "b": 2.0}):
        with pytest.raises(SpecError, match="weights are at least 0"):
            resolve("supervision", {"name": "segments", "weights": weights})
    assert resolve("supervision", "segments:weights.safety=2") == Segments(weights={"safety": 2.0})


def test_option_language() -> None:
    german, english = (
        [s.stop for s in Segments(language=code).pieces(Answer("Das ist bzgl. Haus gut. Oder?"))]
        for code in ("de", "en")
    )
    assert german == [24, 29]
    assert english == [14, 24, 29]  # English knows no "bzgl."


@pytest.mark.parametrize("language", ["english", "", "e n"])
def test_a_language_is_a_code(language: str) -> None:
    with pytest.raises(SpecError, match="language"):
        resolve("supervision", {"name": "segments", "language": language})


def test_what_cannot_be_placed_is_one_neutral_segment() -> None:
    """An answer of several turns has no text of its own under its tokens."""
    tokens = AnswerTokens((1, 2, 3), ((0, 0),) * 3, (1.0,) * 3)
    example = Example(Record("r", "p", (Answer("Two. Turns."),), label=True), (1,), (tokens,))
    (found,) = Segments()(example).answers
    assert (found.segment, found.score) == ((0, 0, 0), (NEUTRAL,))


def test_spans_without_a_place_are_refused() -> None:
    """A template that rewrote the words: the first span's score must not become the whole answer's."""
    tokens = AnswerTokens((1, 2), ((0, 0),) * 2, (1.0,) * 2)
    answer = Answer("One. Two.", (Span(0, 5, "a", 0.0), Span(5, 9, "a", 1.0)))
    example = Example(Record("r", "p", (answer,), label=True, where="f:3"), (1,), (tokens,))
    with pytest.raises(DataError, match=r"^f:3: the chat template rewrote an answer"):
        Segments()(example)


def test_the_end_of_turn_goes_with_what_stands_before_it() -> None:
    """Also where a span took the last token from its neighbour; of spans inside one token, one is heard."""
    two = Answer("abcdefgh", (Span(0, 6, "a", 1.0), Span(6, 8, "a", 0.0)))
    tokens = AnswerTokens((1, 2, 3), ((0, 3), (3, 8), (8, 8)), (1.0,) * 3)
    (found,) = Segments()(Example(Record("r", "p", (two,), label=True), (1,), (tokens,))).answers
    assert (found.segment, found.score) == ((0, 1, 1), (1.0, 0.0))
    three = Answer("abc", (Span(0, 1, "a", 0.1), Span(1, 2, "a", 0.2), Span(2, 3, "a", 0.3)))
    tokens = AnswerTokens((1, 2), ((0, 3), (3, 3)), (1.0,) * 2)
    (found,) = Segments()(Example(Record("r", "p", (three,), label=True), (1,), (tokens,))).answers
    assert (found.segment, found.score) == ((0, 0), (0.1,))


def test_blank_beginnings_are_nobodys_segment() -> None:
    answer = Answer("\n\nHello there. Bye.", (Span(2, 14, "a", 1.0), Span(15, 19, "a", 0.0)))
    assert [(s.start, s.stop, s.score) for s in Segments().pieces(answer)] == [(0, 15, 1.0), (15, 19, 0.0)]


def test_segments_that_were_cut_away_are_not_counted() -> None:
    spans = (Span(0, 11, "a", 0.1), Span(12, 32, "a", 0.2), Span(33, len(TEXT), "a", 0.3))
    tokens = words(TEXT)
    short = AnswerTokens(tokens.ids[:3], tokens.offsets[:3], tokens.weight[:3])
    example = Example(Record("r", "p", (Answer(TEXT, spans),), label=True), (1,), (short,))
    (found,) = Segments()(example).answers
    assert (found.segment, found.score) == ((0, 0, 1), (0.1, 0.2))
