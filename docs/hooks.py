"""What happens while the site is built (properdocs.yml): pages are made, links mended, and the navigation found.

The sources are docs/ as they are, and README.md as the home page. Whatever a page links to outside docs/ becomes a page
under project/: Markdown as it is, any other text as code. Links are written as they work in the repository; here they
are pointed at the pages. Nothing is listed by hand: a new file in docs/ is in the navigation.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from properdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import pages

from grainline import cli, rooms

ROOT = Path(__file__).resolve().parents[1]
SEEDS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
"""Pages outside docs/ that need no link."""
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".toml": "toml"}

_LINK = re.compile(r"(?P<code>^```.*?^```|`[^`\n]+`)|\]\((?P<target>[^)\s#:]+)(?=[)#])", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+`")


# ---------------------------------------------------------------------------------------------------------- events


def on_files(files: Any, config: Any) -> Any:
    """Add what docs/ does not hold, and find the navigation."""
    add: Callable[[File], None] = files.append
    for place, write in pages.generated().items():
        if files.get_file_from_path(place) is None:
            add(File.generated(config, place, content=write()))
    written = [f"docs/{file.src_uri}" for file in files.documentation_pages() if file.generated_by is None]
    for path in outside([*SEEDS, *written]):
        add(File.generated(config, place_of(path), content=text_of(path)))
    config.nav = navigation(sorted(file.src_uri for file in files.documentation_pages()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Mend the links of a page that stands in the repository, and add a method's options."""
    place = page.file.src_uri
    if place == "index.md":
        page.meta["hide"] = ["navigation"]  # it would hold this page alone; terminals' output wants the room
    path = next((path for path in SOURCES if place_of(path) == place), f"docs/{place}")
    if not (ROOT / path).is_file():
        return markdown
    room, _, name = place.removesuffix(".md").partition("/")
    if room in rooms.FOLDERS and path.startswith("docs/"):
        markdown = with_options(markdown, pages.options(room, name))
    return bars(mended(markdown, path))


# ----------------------------------------------------------------------------------------------------------- links

SOURCES: dict[str, None] = {}
"""Files outside docs/ that are pages, in the order in which they were found."""


def outside(paths: list[str]) -> Iterator[str]:
    """Every file outside docs/ that is among ``paths``, or that a page links to, and that again links to."""
    SOURCES.clear()
    waiting = list(paths)
    while waiting:
        path = waiting.pop(0)
        if not path.startswith("docs/"):
            if path in SOURCES:
                continue
            SOURCES[path] = None
            yield path
        if path.endswith(".md"):
            text = (ROOT / path).read_text(encoding="utf-8")
            found = (target for match in _LINK.finditer(text) if (target := resolved(match["target"], path)))
            waiting += [target for target in found if not target.startswith("docs/")]


def resolved(target: str | None, path: str) -> str | None:
    """The file that a link on the page ``path`` means, from the root; None if there is no such file."""
    found = posixpath.normpath(posixpath.join(posixpath.dirname(path), target)) if target else ""
    return found if found and (ROOT / found).is_file() else None


def place_of(path: str) -> str:
    """Where a file of the repository stands in the site.

    >>> place_of("README.md"), place_of("docs/data.md"), place_of("bench/README.md"), place_of("examples/own_loop.py")
    ('index.md', 'data.md', 'project/bench/README.md', 'project/examples/own_loop.py.md')
    """
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"project/{path}" if path.endswith(".md") else f"project/{path}.md"


def text_of(path: str) -> str:
    """A file as a page: Markdown as it is, other text as code below its name."""
    text = (ROOT / path).read_text(encoding="utf-8")
    language = LANGUAGES.get(Path(path).suffix, "text")
    return text if path.endswith(".md") else f"# `{path}`\n\n```{language}\n{text}```\n"


def mended(markdown: str, path: str) -> str:
    """``markdown`` of the file ``path`` with its links as they work in the site; what cannot be found stays, and the
    strict build says so."""

    def mend(match: re.Match[str]) -> str:
        if (target := resolved(match["target"], path)) is None:
            return match[0]
        return "](" + posixpath.relpath(place_of(target), posixpath.dirname(place_of(path)) or ".")

    return _LINK.sub(mend, markdown)


# ----------------------------------------------------------------------------------------------------------- pages


def with_options(markdown: str, options: str) -> str:
    """The table of options before the last section, ``One line``; where there is none, at the end."""
    before, heading, after = markdown.partition("\n## One line")
    return f"{before.rstrip()}\n\n{options}{heading}{after}" if options else markdown


def bars(markdown: str) -> str:
    r"""In tables ``\|`` inside code shows its backslash here, unlike in the repository."""
    lines = (
        _CODE.sub(lambda found: found[0].replace(r"\|", "|"), line) if line.startswith("|") else line
        for line in markdown.split("\n")
    )
    return "\n".join(lines)


def navigation(places: list[str]) -> list[Any]:
    """All pages in their order: the home page, the way in, then methods, commands, reference, project."""
    rest = dict.fromkeys(places)

    def take(*wanted: str) -> list[str]:
        return [place for place in wanted if rest.pop(place, "") is None]

    def under(folder: str) -> list[str]:
        return take(f"{folder}/index.md", *(place for place in places if place.startswith(f"{folder}/")))

    def named(found: list[str]) -> list[Any]:
        return [place if place.endswith("index.md") else {Path(place).stem: place} for place in found]

    home = take("index.md")
    methods = [{room.capitalize(): named(under(room))} for room in rooms.ROOMS]
    presets = take("presets.md")
    commands = [*take("reference/cli.md"), *named(take(*(f"{verb}.md" for verb in cli.verbs())))]
    reference = under("reference")
    project = [*take("architecture.md"), *under("project")]
    start = take("start.md")
    return [
        *({"Home": place} for place in home),
        {"Guide": [*start, *rest]},
        {"Methods": [*methods, *presets]},
        {"Commands": commands},
        {"Reference": reference},
        {"Project": project},
    ]
