"""Every module has its test where one would look for it, and every method its page; modules keep to size and names.

::

    src/grainline/trainer.py            tests/test_trainer.py
    src/grainline/objectives/dpo.py     tests/objectives/test_dpo.py     docs/objectives/dpo.md
    .../two_d_dpo.py (name = "2d-dpo")  tests/objectives/test_two_d_dpo.py     docs/objectives/2d-dpo.md
    .../dpo_torch.py                    the test of dpo
    .../_parts.py                       tests/objectives/test_parts.py
    rewards/equilibrium/contour.py      tests/rewards/equilibrium/test_contour.py; a folder in a room is no method, so
                                        its files have no pages
    a room's _seam.py and __init__.py   the room's battery, tests/objectives/test_room.py
    another folder's __init__.py        tests/test_<folder>.py or tests/<folder>/test_init.py, where it holds code
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from grainline import rooms

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 400  # lines
FORBIDDEN = {"utils", "util", "helpers", "helper", "base", "misc", "common"}


def modules(root: Path) -> list[Path]:
    """All source files, relative to the package."""
    package = root / "src" / "grainline"
    return sorted(path.relative_to(package) for path in package.rglob("*.py"))


def is_bare(path: Path) -> bool:
    """Whether a module holds a docstring at most."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def in_room(module: Path) -> bool:
    """Whether a module stands directly in a room: a method, or what methods share."""
    return module.parts[0] in rooms.FOLDERS and len(module.parts) == 2


def test_of(module: Path) -> Path:
    """Where the test of a module stands, relative to tests/."""
    room = module.parts[0] if in_room(module) else None
    if room and module.stem in ("__init__", "_seam"):
        return Path(room) / "test_room.py"
    stem = module.stem.removesuffix("_torch") if room else module.stem
    return module.parent / f"test_{stem.strip('_')}.py"


test_of.__test__ = False  # type: ignore[attr-defined]  # a function about tests, not a test


def missing(root: Path) -> list[str]:
    """Every path that should exist and does not."""
    wanted = []
    for module in modules(root):
        file = root / "src" / "grainline" / module
        if module.stem == "__init__" and not in_room(module):
            whole = (
                root / "tests" / module.parent.with_name(f"test_{module.parent.name}.py")
                if module.parent.name
                else None
            )
            if is_bare(file) or (whole and whole.is_file()):
                continue
        wanted.append(Path("tests") / test_of(module))
        method = in_room(module) and module.stem[0] != "_" and not module.stem.endswith("_torch")
        if method:
            wanted.append(Path("docs") / module.parts[0] / f"{rooms._name(file)}.md")
    return sorted({str(path) for path in wanted if not (root / path).is_file()})


def too_long(root: Path) -> list[str]:
    lengths = {module: len((root / "src" / "grainline" / module).read_text().splitlines()) for module in modules(root)}
    return [f"{module}: {lines} lines, more than {LONGEST}" for module, lines in lengths.items() if lines > LONGEST]


def vague(root: Path) -> list[str]:
    """Modules and folders whose name says nothing of what is in them."""
    return [
        str(module)
        for module in modules(root)
        if FORBIDDEN & {part.strip("_") for part in module.with_suffix("").parts}
    ]


def test_every_module_has_its_test_and_every_method_its_page() -> None:
    assert missing(ROOT) == []


def test_no_module_is_too_long_to_read() -> None:
    assert too_long(ROOT) == []


def test_no_module_has_a_vague_name() -> None:
    assert vague(ROOT) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A well-kept small tree."""
    for path, text in {
        "src/grainline/__init__.py": '"""Only words."""',
        "src/grainline/forward.py": "",
        "src/grainline/data/__init__.py": "",
        "src/grainline/data/_columns.py": "",
        "src/grainline/objectives/__init__.py": "",
        "src/grainline/objectives/_parts.py": "",
        "src/grainline/objectives/_seam.py": "",
        "src/grainline/objectives/dpo.py": "",
        "src/grainline/objectives/dpo_torch.py": "",
        "src/grainline/objectives/two_d_dpo.py": 'name = "2d-dpo"\n',
        "src/grainline/objectives/folder/__init__.py": "",
        "src/grainline/objectives/folder/contour.py": "",
        "tests/test_forward.py": "",
        "tests/data/test_columns.py": "",
        "tests/objectives/test_room.py": "",
        "tests/objectives/test_parts.py": "",
        "tests/objectives/test_dpo.py": "",
        "tests/objectives/test_two_d_dpo.py": "",
        "tests/objectives/folder/test_contour.py": "",
        "docs/objectives/dpo.md": "",
        "docs/objectives/2d-dpo.md": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_well_kept_tree_passes(tree: Path) -> None:
    assert (missing(tree), too_long(tree), vague(tree)) == ([], [], [])


@pytest.mark.parametrize(
    "path",
    [
        "tests/test_forward.py",
        "tests/data/test_columns.py",
        "tests/objectives/test_room.py",
        "tests/objectives/test_parts.py",
        "tests/objectives/test_dpo.py",
        "tests/objectives/test_two_d_dpo.py",
        "tests/objectives/folder/test_contour.py",
        "docs/objectives/dpo.md",
        "docs/objectives/2d-dpo.md",
    ],
)
def test_a_missing_file_is_named(tree: Path, path: str) -> None:
    (tree / path).unlink()
    assert missing(tree) == [path]


def test_a_package_with_code_wants_a_test(tree: Path) -> None:
    (tree / "src/grainline/data/__init__.py").write_text("x = 1\n")
    assert missing(tree) == ["tests/data/test_init.py"]
    (tree / "tests/test_data.py").touch()
    assert missing(tree) == []


def test_a_long_or_vaguely_named_module_is_named(tree: Path) -> None:
    (tree / "src/grainline/data/_utils.py").write_text("\n" * (LONGEST + 1))
    assert too_long(tree) == [f"data/_utils.py: {LONGEST + 1} lines, more than {LONGEST}"]
    assert vague(tree) == ["data/_utils.py"]
