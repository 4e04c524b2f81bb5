"""The documentation is true: its Python runs, its rows and recipes are read, its commands parse, and the site builds.

A block that should not be run is preceded by ``<!-- not run: REASON -->``. Of commands it is checked that verb and
options exist, and of ``align`` and ``plan`` that keys, methods and options do too. Those of ``start.md`` are carried
out, as the README's are by ``test_readme.py``.
"""

from __future__ import annotations

import dataclasses
import html
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from _toy import Toy
from grainline import cli, recipe, rooms
from grainline.data import load
from grainline.recipe import presets

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
MODELS = ("smollm2-135m-instruct", "my-model")
"""What the pages call a model; the toy stands in for it."""


class Block(NamedTuple):
    language: str  # "" for a fence that names none, and for indented code
    text: str


def blocks(page: Path) -> list[Block]:
    """Fenced and indented code of a page, without what is marked as not to be run."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^<!-- not run: .+ -->\n+```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    fenced = [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^    .*\n)+", rest + "\n", re.MULTILINE)
    return fenced + [Block("", re.sub("^    ", "", found, flags=re.MULTILINE)) for found in indented]


def commands(page: Path) -> Iterator[str]:
    """Every line of code that begins with ``grainline``, without remarks, redirections and pipes."""
    for language, text in blocks(page):
        if language in ("", "sh", "shell", "bash", "console"):
            for line in text.splitlines():
                if line.removeprefix("$ ").startswith("grainline "):
                    yield re.split(r"\s{3,}|\s+[#<>|]\s+", line.removeprefix("$ "))[0]


def named(pages: list[Path]) -> list[Any]:
    return [pytest.param(page, id=str(page.relative_to(ROOT / "docs"))) for page in pages]


@pytest.fixture
def folder(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place that holds what the pages speak of."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(toy.pairs, "pairs.jsonl")
    shutil.copy(toy.held_out, "test.jsonl")
    return tmp_path


# --------------------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("page", named([page for page in PAGES if "\n```python" in page.read_text(encoding="utf-8")]))
def test_python(page: Path, folder: Path, toy: Toy) -> None:
    """The blocks of a page, one after the other, as a reader would type them."""
    names: dict[str, Any] = {}
    for language, text in blocks(page):
        if language == "python":
            for model in MODELS:
                text = text.replace(model, toy.model)
            text = re.sub(r"\bsteps=\d+", "steps=2, progress=False", text)
            exec(compile(text, str(page), "exec"), names)


def test_the_start_from_its_first_command_to_its_last(
    folder: Path, toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/start.md, carried out: two steps instead of 60, the toy instead of a model."""
    page = ROOT / "docs" / "start.md"
    (written,) = [text for language, text in blocks(page) if language == "yaml"]
    short = written.replace(MODELS[0], toy.model).replace("steps: 60", "steps: 2").replace("every: 20", "every: 1")
    Path("recipe.yaml").write_text(short, encoding="utf-8")
    for line in commands(page):
        arguments = shlex.split(line.replace(MODELS[0], toy.model).replace("--steps 10", "--steps 1"))[1:]
        if arguments[0] == "peek":
            arguments += ["--model", toy.model]
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert not caught.value.code, f"{line}: {capsys.readouterr().err}"
    assert {file.name for file in (folder / "adapter").iterdir()} >= {"adapter_model.safetensors", "README.md"}


@pytest.mark.parametrize("page", named(PAGES))
def test_commands(page: Path) -> None:
    root = typer.main.get_command(cli.app())
    for line in commands(page):
        verb, *words = shlex.split(line)[1:]
        if verb in ("--help", "--version"):
            continue
        group = root.commands.get(verb)  # type: ignore[attr-defined]
        if hasattr(group, "commands") and words:  # a verb of several commands
            try:
                group.commands[words[0]].make_context(words[0], list(words[1:]))
            except Exception as error:
                pytest.fail(f"{line}: {getattr(error, 'message', error)}")
        assert verb in root.commands, line  # type: ignore[attr-defined]
        try:
            parsed = root.commands[verb].make_context(verb, list(words))  # type: ignore[attr-defined]
        except Exception as error:
            pytest.fail(f"{line}: {getattr(error, 'message', error)}")
        if verb in ("align", "plan"):
            given = [word for word in (parsed.params["recipe"], *(parsed.params["overrides"] or ())) if "=" in word]
            said = {word.partition("=")[0] for word in given}
            needed = {key: "x" for key in ("model", "data") if key not in said}
            recipe.load(needed, given, notice=lambda remark: None)


@pytest.mark.parametrize("page", named(PAGES))
def test_rows_and_recipes(page: Path, tmp_path: Path) -> None:
    for language, text in blocks(page):
        if language == "jsonl":
            (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
            found = load.read(str(tmp_path / "rows.jsonl"))
            assert found.records
            assert not found.problems
        if language == "yaml" and re.search(r"^model:", text, re.MULTILINE):
            (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
            recipe.load(tmp_path / "recipe.yaml")


def test_blocks_and_commands_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\na = 1\n```\n\n<!-- not run: needs a GPU -->\n```python\nb = 2\n```\n\n"
        "    grainline ls objectives      what there is\n    grainline schema > file.json\n\n"
        "```\n$ grainline ls   # all\nmake setup\n```\n"
    )
    assert [text for language, text in blocks(page) if language == "python"] == ["a = 1\n"]
    assert list(commands(page)) == ["grainline ls", "grainline ls objectives", "grainline schema"]


# ------------------------------------------------------------------------------------------------------------- site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it: a warning is an error, and nothing is fetched."""
    if importlib.util.find_spec("properdocs") is None:
        pytest.skip("NO SITE: properdocs is not installed; run `make setup`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "properdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(command, cwd=ROOT, env=os.environ | proxies, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def words(page: Path) -> str:
    """The text of a page, without its tags and breaks."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))).split())


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in PAGES:
        place = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / place).is_file()
        assert f'href="{place}"' in home, f"{place} is not in the navigation"


def test_every_method_has_its_options_and_its_line_in_the_index(site: Path) -> None:
    for room in rooms.FOLDERS:
        index = words(site / room / "index.html")
        for name in rooms.names(room):
            cls = rooms.load(room, name)
            assert rooms.summary(cls)["title"] in index
            page = words(site / room / f"{name}.html")
            for option, field in rooms.fields(cls).items():
                assert option in page
                meaning = " ".join(field["description"].split("`")[0].split())
                assert meaning in page, f"{name}: {option}"


def test_every_verb_preset_and_key_is_there(site: Path) -> None:
    verbs, listed, keys = (words(site / f"{page}.html") for page in ("reference/cli", "presets", "reference/recipe"))
    assert all(f"Usage: grainline {verb}" in verbs for verb in cli.verbs())
    assert all(name in listed for name in presets())
    assert all(" ".join(one.about.split()) in listed for one in presets().values())  # a star in it is a star
    for spec in (recipe.Recipe, recipe.ModelChoice, recipe.DataChoice, recipe.EvaluationChoice, recipe.HeldOutChoice):
        assert all(re.search(rf"\b{field.name}\b", keys) for field in dataclasses.fields(spec))
    assert "evaluation.data.split" in keys
    assert "max_steps" in keys  # a name of transformers
    assert "rewards/accuracies" in words(site / "reference/metrics.html")


def test_nothing_is_fetched_by_the_reader(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"|<link[^>]*\shref="([^"]+)"', text)
        assert not [address for found in fetched for address in found if "//" in address], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_no_code_shows_a_backslash_before_a_bar(site: Path) -> None:
    assert "\\|" not in words(site / "check.html")


# ------------------------------------------------------------------------------------------------------------ hooks


@pytest.fixture(scope="module")
def hooks() -> Any:
    pytest.importorskip("properdocs", reason="NO SITE: properdocs is not installed; run `make setup`")
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_are_pointed_at_pages_and_code_is_left_alone(hooks: Any) -> None:
    given = "[a](../bench/README.md#x) [b](data.md) [c](https://x.y/z.md) [d](#here) `[e](data.md)` [f](nowhere.md)"
    assert hooks.mended(given, "docs/architecture.md") == given.replace("../bench/", "project/bench/")
    assert hooks.mended("[a](docs/data.md)", "README.md") == "[a](data.md)"
    assert hooks.mended("[a](../README.md)", "docs/data.md") == "[a](index.md)"
    assert hooks.mended("[a](../../README.md#b)", "docs/objectives/dpo.md") == "[a](../index.md#b)"
    assert hooks.mended("```\n[a](docs/data.md)\n```", "README.md") == "```\n[a](docs/data.md)\n```"


def test_what_a_page_links_to_becomes_a_page(hooks: Any) -> None:
    assert next(iter(hooks.outside(["README.md", "docs/data.md"]))) == "README.md"
    found = list(hooks.outside(["README.md"]))
    assert "examples/own_loop.py" in found
    assert not [path for path in found if path.startswith("docs/")]
    assert hooks.text_of("examples/own_loop.py").startswith("# `examples/own_loop.py`\n\n```python\n")


def test_options_stand_before_the_last_section(hooks: Any) -> None:
    assert hooks.with_options("# m\n\n## One line\nx", "T\n") == "# m\n\nT\n\n## One line\nx"
    assert hooks.with_options("# m\n", "T\n") == "# m\n\nT\n"
    assert hooks.with_options("# m\n", "") == "# m\n"


def test_bars_in_code_only(hooks: Any) -> None:
    assert hooks.bars("| `a\\|b` | c \\| d | `e` |\n`f\\|g`") == "| `a|b` | c \\| d | `e` |\n`f\\|g`"


def test_a_new_page_is_in_the_navigation(hooks: Any) -> None:
    found = hooks.navigation(["index.md", "start.md", "news.md", "objectives/new.md", "align.md", "project/X.md"])
    by_name = {name: entries for entry in found for name, entries in entry.items()}
    assert by_name["Guide"] == ["start.md", "news.md"]
    assert {"Objectives": [{"new": "objectives/new.md"}]} in by_name["Methods"]
    assert by_name["Commands"] == [{"align": "align.md"}]
    assert by_name["Project"] == ["project/X.md"]


def test_a_docstrings_table_becomes_markdown(hooks: Any) -> None:
    text = (
        "See :func:`~a.b`.\n\n====  =====\none   two\n====  =====\na, b  first\n      line\nc     ``x``\n====  =====\n"
    )
    assert hooks.pages.markdown(text) == (
        "See `a.b`.\n\n| one | two |\n| --- | --- |\n| `a`, `b` | first line |\n| `c` | `x` |\n"
    )
