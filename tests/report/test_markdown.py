"""The report as text."""

from __future__ import annotations

from pathlib import Path

from markdown_it import MarkdownIt

import _evaluations
from _runs import Make, lines, look, nasty, step
from grainline.report import markdown


def render(text: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(text)


def test_figures_are_those_of_the_files(make: Make) -> None:
    text = markdown.text([make(warnings_jsonl='{"seen": "Odd.", "instead": "Look.", "step": 3}\n')])
    assert "| Accuracy" in text
    row = next(line for line in text.splitlines() if line.startswith("| Accuracy"))
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["0.500", "0.800 [0.700, 0.900]", "+0.300"]
    assert "- Step 3: Odd. Look." in text
    assert render(text).count("<table>") == 5  # change, aspects, cost, recipe, provenance
    assert "grainline replay" in text


def test_columns_stand_in_line(make: Make) -> None:
    table = next(part for part in markdown.text([make()]).split("\n\n") if part.startswith("| metric"))
    widths = [len(line) for line in table.splitlines()]
    assert len(widths) > 3
    assert len(set(widths)) == 1


def test_what_was_measured_later(make: Make) -> None:
    run = make()
    _evaluations.write(run)
    text = markdown.text([run])
    assert "## Measured on test: 24 rows" in text
    assert "0.875 [0.550, 0.950]" in text
    assert "| arc\\_easy" in text or "| arc_easy" in text
    other = make("b")
    _evaluations.write(other)
    assert "## Measured on test, the same rows" in markdown.text([run, other])


def test_reasons_are_lists(make: Make) -> None:
    text = markdown.text([make()])
    assert "Speaks for it:\n\n- Held-out accuracy 0.80" in text
    assert "\n- What it has forgotten" in text.partition("Not known:\n\n- ")[2]


def test_several_and_missing_pieces(make: Make) -> None:
    bare = make("b", metrics_jsonl=None, results_json=None, provenance_json=None, samples_jsonl=None)
    text = markdown.text([make("a"), bare])
    assert "## Side by side" in text
    unmeasured = make("c", metrics_jsonl=lines(map(step, range(1, 4))), results_json='{"step": 3}')
    for folder in (bare, unmeasured):
        assert markdown.text([folder]).startswith("# ")


def test_a_set_measured_only_afterwards_has_no_before(make: Make) -> None:
    log = lines([step(1), step(2), look(2, 0.8)])
    assert "| metric" in markdown.text([make(metrics_jsonl=log)])


def test_hostile_text_is_only_text(make: Make, tmp_path: Path) -> None:
    text = markdown.text([nasty(tmp_path)])
    text.encode()
    assert not set(text) & {"\x1b", "\x00", "\u202e"}
    html = render(text)
    assert "<script" not in html
    assert "<img" not in html
    assert "href" not in html
