"""Problems are counted without bound and kept with one."""

from __future__ import annotations

import pytest

from grainline.data import problems
from grainline.data.problems import Collector, Problem, unusable
from grainline.errors import DataError


def problem(kind: str, severity: problems.Severity, row: int) -> Problem:
    return Problem(kind, severity, f"d:{row}", f"{kind} {row}.", "Mend it.")


def test_errors_come_first_then_the_commonest() -> None:
    found = Collector(kept=2)
    found.add([problem("b", "warning", 1), *(problem("a", "warning", n) for n in (2, 3, 4)), problem("c", "error", 5)])
    groups = found.groups()
    assert [(g.severity, g.kind, g.number) for g in groups] == [
        ("error", "c", 1), ("warning", "a", 3), ("warning", "b", 1),
    ]  # fmt: skip
    assert [p.where for p in groups[1].problems] == ["d:2", "d:3"]


def test_no_more_kinds_than_stated() -> None:
    found = Collector()
    found.add(problem(f"kind {n}", "error", n) for n in range(problems.KINDS + 5))
    groups = found.groups()
    assert len(groups) == problems.KINDS + 1
    assert (groups[0].kind, groups[0].number) == ("another reason", 5)


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (
            "end 9 is outside the answer, which has 3 characters.",
            "end 70 is outside the answer, which has 12 characters.",
            "end … is outside the answer, which has … characters",
        ),
        ("unknown role 'usr'.", "unknown role 'bot'.", "unknown role …"),
        ("5 (int) is not text.", "-7 (int) is not text.", "a value of type int is not text"),
        ("'a\nb' (str) is not a label.", "'yes' (str) is not a label.", "a value of type str is not a label"),
    ],
)
def test_messages_that_differ_in_names_and_numbers_are_one_kind(one: str, other: str, kind: str) -> None:
    assert [unusable(DataError(what, where="d:1", instead="Do.")).kind for what in (one, other)] == [kind, kind]
    assert unusable(DataError(one, where="d:1 x", instead="Do.")) == Problem(kind, "error", "d:1 x", one, "Do.")
