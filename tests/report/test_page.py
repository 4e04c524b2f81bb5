"""The page: its figures are those of the files, nothing comes from outside, and no text can do harm."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import _evaluations
from _runs import LINES, NASTY, RECIPE, Make, lines, look, nasty, step
from grainline.errors import RunError, UserError
from grainline.report import page as pages
from grainline.report import view, words
from grainline.report.page import RUNS, page

if TYPE_CHECKING:
    from grainline.runs import Run

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Text, attributes, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.cells: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def check(html: str) -> Reader:
    """What must be true of every page."""
    found = Reader(html)
    assert not found.tags & {"iframe", "img", "object", "embed", "link", "form"}
    only_its_own(html)
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name != "style", (tag, value)
        if name in ("src", "href", "action", "srcset", "data"):
            assert value.startswith("#"), (tag, name, value)
    assert not re.search(r"url\((?!#)|@import", html)
    ids = [value for _, name, value in found.attributes if name == "id" and not re.fullmatch(r"[pm]\w{10}", value)]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for tag, name, value in found.attributes if (tag, name) == ("a", "href")}
    assert targets <= set(ids)
    assert len(html.encode()) < 1_000_000
    return found


def only_its_own(html: str) -> None:
    """One script and one style, and the policy, which comes before both, allows these alone."""
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    allowed = dict(part.split(" ", 1) for part in policy[1].split("; "))
    assert allowed.pop("default-src") == allowed.pop("base-uri") == allowed.pop("form-action") == "'none'"
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed.pop(f"{tag}-src") == f"'sha256-{digest}'"
        assert policy.end() < html.index(f"<{tag}")
    assert not allowed


def test_figures_are_those_of_the_files(make: Make) -> None:
    found = check(page([make()]).html)
    cells = [cell.replace("\xa0", " ") for cell in found.cells]
    at = cells.index("Accuracy")
    assert cells[at + 1 : at + 4] == ["0.500", "0.800 [0.700, 0.900]", "+0.300"]
    for line in LINES:
        if "loss" not in line:
            assert words.interval("a", {"a": line["eval_test_rewards/margins"]}) in cells
    assert cells[cells.index("Trainable parameters") + 1] == "4,096"
    assert cells[cells.index("torch") + 1] == "2.9.0"
    assert cells[cells.index("clear") + 2] == "0.600 [0.300, 0.900]"


def test_figures_of_an_evaluation_are_computed_again(make: Make) -> None:
    """From rows.jsonl and tokens.jsonl, by hand."""
    run = make()
    _evaluations.write(run)
    html = page([run]).html
    cells = [cell.replace("\xa0", " ") for cell in check(html).cells]
    rows = _evaluations.rows()
    won = sum(row["rewards/margins"] > 0 for row in rows) / len(rows)
    assert f"{won:.3f} [0.550, 0.950]" in cells
    assert f"{sum(row['rewards/margins'] for row in rows) / len(rows):.3f}" in cells
    sums = [
        sum(row[role]["policy"]) - sum(row[role]["reference"]) for role in ("chosen", "rejected") for row in rows[:1]
    ]
    for role, gain in zip(("chosen", "rejected"), sums, strict=True):
        assert f"{role} · {rows[0][role]['tokens']} tokens, reward {words.signed(0.1 * gain)}" in unescape(html)
    assert words.number(rows[0]["chosen"]["kl"][0]) == re.search(r'data-c="([^"]*)"', html)[1]  # type: ignore[index]


def test_a_real_run(toy_run: Run) -> None:
    shown = toy_run.report()
    found = check(shown.html)
    cells = [cell.replace("\xa0", " ") for cell in found.cells]
    results = toy_run.summary()
    for metric in ("rewards/accuracies", "rewards/margins", "logps/chosen_per_token", "likelihood/accuracies"):
        assert words.interval(f"eval_test_{metric}", results) in cells
    assert words.number(results["num_tokens"]) in cells
    assert unescape(shown.html).count("Numbers of") >= 7
    check(toy_run.report(toy_run.folder).html)  # itself once more is itself


def test_several_runs_on_the_same_rows(make: Make) -> None:
    one, two = make("a"), make("b")
    facts = _evaluations.facts()
    facts["against"] = {"kind": "run", "name": "a"}
    bounds = {"against/rewards/accuracies_low": 0.05, "against/rewards/accuracies_high": 0.15}
    facts["metrics"] |= {"against/rewards/accuracies": 0.1, **bounds, "against/rewards/accuracies_p": 0.02}
    _evaluations.write(one)
    _evaluations.write(two, facts_json=json.dumps(facts))
    shown = page([one, two])
    cells = [cell.replace("\xa0", " ") for cell in check(shown.html).cells]
    assert cells[cells.index("b less a, test") + 2] == "0.100 [0.050, 0.150], p = 0.020"
    assert cells.count("0.875 [0.550, 0.950]") == 4  # among those with an interval, and among all
    other = make("c")
    _evaluations.write(other, facts_json=json.dumps(facts | {"data": {"digest": "other rows"}}))
    assert "<h2>Measured on test" not in page([one, other]).html
    unknown = [make("d"), make("e")]
    for run in unknown:
        _evaluations.write(run, facts_json=json.dumps(facts | {"data": {}}))
    assert "<h2>Measured on test" not in page(unknown).html


def test_several_runs(make: Make) -> None:
    recipe = RECIPE.replace("lr=0.01", "lr=0.5")
    shown = page([make("a"), make("b", recipe_yaml=recipe, results_json=json.dumps(look(30, 0.2)))])
    cells = [cell.replace("\xa0", " ") for cell in check(shown.html).cells]
    at = cells.index("Accuracy")
    assert cells[at + 1 : at + 3] == ["0.800 [0.700, 0.900]", "0.200 [0.100, 0.300]"]
    assert "adamw:lr=0.5" in cells
    assert "a has the highest held-out accuracy" in shown.html


@pytest.mark.parametrize(
    "files",
    [
        {"metrics_jsonl": None, "results_json": None, "provenance_json": None, "samples_jsonl": None},
        {"metrics_jsonl": lines(map(step, range(1, 31))), "results_json": '{"step": 30}', "samples_jsonl": None},
        {"metrics_jsonl": lines(LINES[:9]), "results_json": None},
        {"metrics_jsonl": lines([look(0, 0.5), step(1)]), "results_json": None},
        {"recipe_yaml": "a: 1\n"},
        {"recipe_yaml": "model: 3\ndata: {x: 1}\nevaluation: []\nmax_grad_norm: no\nsteps: [1]\n"},
        {"provenance_json": '{"data": {"train": [3], "evaluation": {"test": []}}, "time": {}}'},
        {"metrics_jsonl": lines([look(0, 0.5), step(1), step(2) | {"loss": float("nan")}, look(2, float("nan"))])},
        {
            "metrics_jsonl": lines(
                [look(0, -1e308), *({**step(n), "seconds": 1e308, "num_tokens": 1e309} for n in (1, 2))]
            )
        },
        {"results_json": json.dumps(dict.fromkeys(look(30, 0.8), float("inf")) | {"step": 30})},
    ],
    ids=[
        "bare",
        "no evaluation",
        "unfinished",
        "one step",
        "other recipe",
        "odd recipe",
        "odd provenance",
        "nan",
        "far",
        "inf",
    ],
)
def test_missing_pieces(files: dict[str, str | None], make: Make) -> None:
    check(page([make("a", **files)]).html)
    check(page([make("b"), make("c", **files)]).html)


@pytest.mark.parametrize("runs", [1, 2])
def test_hostile_text_is_only_text(runs: int, make: Make, tmp_path: Path) -> None:
    hostile = nasty(tmp_path)
    _evaluations.nasty(hostile)
    html = page([hostile, *([make("b")] if runs == 2 else [])]).html
    check(html)
    html.encode()
    assert "&lt;script&gt;" in html
    assert not set(html) & {*map(chr, range(9)), "\x1b", "\u202e", "\u202c", "\x7f"}
    assert "⟨U+202E⟩" in html
    assert f"({100_000 + len(NASTY) - view.LONGEST:,} more characters)" in html
    assert "{{ 7*7 }}" in html


def test_a_hostile_folder(make: Make) -> None:
    folder = make("<b>'\"; rm -rf $HOME `x`")
    html = page([folder]).html
    check(html)
    assert "<b>'" not in html


def test_long_runs_stay_small(make: Make) -> None:
    log = [look(0, 0.5), *map(step, range(1, 20_001)), look(20_000, 0.8)]
    check(page([make(metrics_jsonl=lines(log))]).html)


def test_a_large_evaluation_stays_below_five_megabytes(make: Make) -> None:
    run, row = make(), _evaluations.tokens(_evaluations.rows()[0])
    for answer in row["answers"]:
        for key, value in answer.items():
            if isinstance(value, list) and key != "segments":
                answer[key] = (value * 200)[:1000]
    _evaluations.write(run, tokens_jsonl=lines([row] * 40), rows_jsonl=lines(_evaluations.rows() * 200))
    html = page([run]).html
    only_its_own(html)
    assert 1_000_000 < len(html.encode()) < 5_000_000
    assert "600 more tokens are not shown" in html
    assert "28 more pairs are in" in html


def test_twelve_large_evaluations_stay_below_five_megabytes(make: Make) -> None:
    row = _evaluations.tokens(_evaluations.rows()[0])
    for answer in row["answers"]:
        for key, value in answer.items():
            if isinstance(value, list) and key != "segments":
                answer[key] = (value * 200)[:1000]
    runs = [make(f"run{i}") for i in range(RUNS)]
    for run in runs:
        _evaluations.write(run, tokens_jsonl=lines([row | {"id": f"m{i}"} for i in range(12)]))
    html = page(runs).html
    only_its_own(html)
    assert len(html.encode()) < 5_000_000
    assert html.count('type="radio" name="run"') == RUNS


def test_it_can_be_read_in_the_dark_on_paper_and_by_keyboard(make: Make) -> None:
    html = page([make()]).html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert html.index('class="skip"') < html.index("<header>")
    assert len(re.findall(r'class="scroll" tabindex="0" role="region" aria-label="', html)) > 5
    assert html.count('<svg viewBox="0 0 360') == html.count('role="img" aria-label="')
    assert "default-src 'none'" in html


def contrast(one: str, two: str) -> float:
    """The ratio of WCAG 2."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_from_the_ground(mode: int) -> None:
    css = (Path(pages.__file__).parent / "templates" / "style.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[mode]
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for ground in ("paper", "card"):
        for name in ("ink", "soft", "link", "good", "bad", "unsure"):
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)
        for i in range(6):
            assert contrast(found[f"c{i}"], found[ground]) >= 3, (i, ground)
    for sign in "pn":
        shades = [found[f"{sign}{step}"] for step in range(1, 5)]
        assert all(contrast(found["ink"], shade) >= 4.5 for shade in shades), sign
        ladder = [contrast(found["card"], shade) for shade in shades]
        assert ladder == sorted(ladder)  # farther from the ground, farther from zero
        assert contrast(found[f"{sign}-line"], found["card"]) >= 3


def test_in_a_notebook_and_in_a_file(make: Make, tmp_path: Path) -> None:
    made = page([make()])
    frame = made._repr_html_()
    assert frame.startswith('<iframe sandbox="allow-scripts" ')
    assert unescape(re.search(r'srcdoc="([^"]*)"', frame)[1]) == made.html  # type: ignore[index]
    assert made.save(tmp_path / "p.html").read_text(encoding="utf-8") == str(made)
    assert re.fullmatch(r"Page\('first', \d+\.\d kB\)", repr(made))


def test_none_and_too_many(make: Make) -> None:
    for count in (0, 13):
        with pytest.raises(UserError, match="a page shows 1 to 12"):
            page(["x"] * count)
    with pytest.raises(RunError):
        page(["nowhere"])


def test_neither_torch_nor_a_look_is_left_behind(make: Make) -> None:
    """The page is made without torch, and matplotlib is as it was."""
    code = f"""if True:
        import sys, matplotlib
        look = lambda: {{k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != "backend"}}
        was = look()
        from grainline.report.page import page
        page([{str(make())!r}])
        print("torch" in sys.modules, "matplotlib.pyplot" in sys.modules, was == look())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]
