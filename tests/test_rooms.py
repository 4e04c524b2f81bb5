"""Rooms: the grammar as a table, names and their nearest, methods from elsewhere, and the name of every module."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grainline import rooms
from grainline.errors import SpecError

OURS = [(room, name) for room in rooms.FOLDERS for name in rooms.names(room)]

ODD = '''"""A method with options of every kind."""

from typing import Any, ClassVar

from pydantic import Field

from grainline.types import spec


@spec
class Odd:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    number: float = 1.0
    """A number."""
    count: int = 0
    word: str = ""
    flag: bool = False
    maybe: float | None = 0.5
    items: tuple[str | int, ...] = ()
    nested: tuple[tuple[int, ...], ...] = ()
    bag: frozenset[str] = frozenset()
    scale: dict[str, float] = Field(default_factory=dict)
    inner: Any = None
'''


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a user's method, importable by its module."""
    (tmp_path / "oddmethods.py").write_text(ODD)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield "oddmethods:Odd"
    sys.modules.pop("oddmethods", None)


# ------------------------------------------------------------------------------------------------------ the grammar


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("number=0.1", "number", 0.1),
        ("number=1e-4", "number", 1e-4),
        ("number=1e+3", "number", 1000.0),
        ("number=-.5", "number", -0.5),
        ("number=3", "number", 3.0),
        ("number=inf", "number", float("inf")),
        ("count=7", "count", 7),
        ("flag=true", "flag", True),
        ("maybe=null", "maybe", None),
        ("word=plain", "word", "plain"),
        ("word=all-linear", "word", "all-linear"),
        ('word="true"', "word", "true"),
        ('word="1e3"', "word", "1e3"),
        ('word=""', "word", ""),
        ('word="a, b=c: (d"', "word", "a, b=c: (d"),
        ('word="a + 0.5*b"', "word", "a + 0.5*b"),
        ("word='it\\'s'", "word", "it's"),
        (r'word="C:\\x\\"', "word", "C:\\x\\"),
        (r'word="line\nbreak"', "word", "line\nbreak"),
        ('word="größer"', "word", "größer"),
        ("items=[]", "items", ()),
        ("items=[a, b]", "items", ("a", "b")),
        ('items=["a,b", 2]', "items", ("a,b", 2)),
        ("nested=[[1, 2], []]", "nested", ((1, 2), ())),
        ("bag=[b, a]", "bag", frozenset("ab")),
        ("scale={up: 16, down: 1}", "scale", {"up": 16.0, "down": 1.0}),
        ("scale.up=16,scale.down=1", "scale", {"up": 16.0, "down": 1.0}),
        ('scale={"a.b:c, d": 2}', "scale", {"a.b:c, d": 2.0}),
        ("scale={}", "scale", {}),
    ],
)
def test_a_value_is_read_and_written(odd: str, written: str, field: str, value: Any) -> None:
    read = rooms.parse("objectives", f"{odd}:{written}")
    assert getattr(read, field) == value
    assert rooms.parse("objectives", rooms.text(read)) == read


def test_a_method_inside_a_method(odd: str) -> None:
    read = rooms.parse("objectives", f"{odd}:inner=(dpo:beta=0.2,label_smoothing=0.1),count=3")
    assert (read.inner, read.count) == (rooms.parse("objectives", "dpo:beta=0.2,label_smoothing=0.1"), 3)
    assert rooms.parse("objectives", rooms.text(read)) == read


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("dpo", "dpo"),
        ("dpo:", "dpo"),
        (" dpo : beta = 0.2 ", "dpo:beta=0.2"),
        ("dpo:beta=0.1", "dpo"),  # the default
        ("dpo:beta=1e-5", "dpo:beta=1e-05"),
        ("dpo + sft", "dpo + sft"),
        ("dpo:beta=0.2 + 0.5*sft", "dpo:beta=0.2 + 0.5*sft"),
        ("1e-3 * dpo + -2*sft", "0.001*dpo + -2.0*sft"),
        ("0.5*dpo", "0.5*dpo"),
        ("1*dpo", "dpo"),
        ("dpo:label_smoothing=0.1,beta=0.3", "dpo:beta=0.3,label_smoothing=0.1"),
    ],
)
def test_text_is_canonical(written: str, text: str) -> None:
    value = rooms.parse("objectives", written)
    assert rooms.text(value) == text
    assert rooms.parse("objectives", text) == value


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("adamw:lr=1e-3,lr.up=2e-3", "adamw:lr=0.001,lr_of={up: 0.002}"),
        ("adamw:lr.up=2e-3,lr=1e-3,lr_of.down=0", "adamw:lr=0.001,lr_of={up: 0.002, down: 0.0}"),
        ("adamw:lr.up=2e-3", "adamw:lr_of={up: 0.002}"),
    ],
)
def test_entries_of_an_option_that_is_a_number_are_kept_in_a_field_of_their_own(written: str, text: str) -> None:
    value = rooms.parse("optimizers", written)
    assert rooms.text(value) == text
    assert rooms.parse("optimizers", text) == value
    with pytest.raises(SpecError, match=r"option 'lr_of\.up' stands twice"):
        rooms.parse("optimizers", "adamw:lr.up=1,lr_of.up=2")


@pytest.mark.parametrize(("room", "name"), OURS)
def test_every_method_makes_the_round_trip_with_its_defaults(room: str, name: str) -> None:
    value = rooms.parse(room, name)
    assert rooms.text(value) == name
    assert rooms.resolve(room, {"name": name}) == value == rooms.resolve(room, value)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("dop", "no method 'dop' in objectives/. Did you mean 'dpo'?"),
        ("", "no method ''"),
        ("dpo:bta=1", "dpo has no option 'bta'. Did you mean 'beta'?"),
        ("dpo:beta", "option 'beta' has no value."),
        ("dpo:beta=0.1,", "option '' has no value."),
        ("dpo:beta=0.1,beta=0.2", "option 'beta' stands twice."),
        ("dpo:beta.x=1,beta=2", "option 'beta' stands twice."),
        ("dpo:beta=2,beta.x=1", "option 'beta.x' stands twice."),
        ("dpo:beta.x=1,beta.x=1", "option 'beta.x' stands twice."),
        ("dpo:beta=(sft", "')' is missing"),
        ("dpo:beta=sft)", "')' closes nothing"),
        ("dpo:beta=[1)", "')' closes nothing"),
        ("dpo:beta=[1]2", "something stands behind the bracket"),
        ("dpo:beta='a'b", "something stands behind the quotes"),
        ('dpo:beta="a"b', "is not a text in quotes"),
        ("dpo:beta={a}", "'a' has no value."),
        ("dpo:beta=-1", "dpo:beta: Input should be greater than 0, got -1."),
        ("dpo:divergence=kl", "dpo:divergence: Input should be 'reverse_kl'"),
        ("1..2*dpo", "1..2*dpo: no module"),
        ("no.such:Thing", "no module 'no'"),
        ("json:Decoder", "json has no spec 'Decoder'"),
        ("missing.py", "no file 'missing.py'"),
    ],
)
def test_mistakes_are_named(written: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        rooms.parse("objectives", written)
    assert said in str(caught.value)


@pytest.mark.parametrize("choice", [None, 3, ["dpo"], object, {"beta": 0.1}])
def test_what_is_no_choice_is_refused(choice: Any) -> None:
    with pytest.raises(SpecError, match="objectives"):
        rooms.resolve("objectives", choice)


def test_only_rooms_with_a_sum_can_add() -> None:
    with pytest.raises(SpecError, match="optimizers cannot be added"):
        rooms.parse("optimizers", "0.5*adamw")
    with pytest.raises(SpecError, match="no room 'objectivs'"):
        rooms.names("objectivs")


@pytest.mark.parametrize(
    ("choice", "read"),
    [
        ("dpo", ("dpo", {})),
        ("dpo:beta=0.2", ("dpo", {"beta": 0.2})),
        ("nothing-here:a.b=1", ("nothing-here", {"a": {"b": 1}})),
        ({"name": "dpo", "beta": 0.2}, ("dpo", {"beta": 0.2})),
        ("dpo + sft", None),
        ("0.5*dpo", None),
        (None, None),
    ],
)
def test_options_as_written(choice: Any, read: Any) -> None:
    assert rooms.options("objectives", choice) == read


# ------------------------------------------------------------------------------------------------- from elsewhere


def test_a_method_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "my_odd.py"
    file.write_text(ODD)
    value = rooms.parse("objectives", f"{file}:count=2")
    assert value.count == 2
    assert rooms.text(value) == f"{file}:Odd:count=2"
    assert rooms.parse("objectives", rooms.text(value)) == value
    assert rooms.load("objectives", str(file)) is type(value)
    assert rooms.summary(type(value))["needs"] == ["pairs"]


def test_a_file_that_was_changed_is_another_method(tmp_path: Path) -> None:
    """In a notebook, say: what is done next is done by what stands in the file now."""
    file = tmp_path / "my_odd.py"
    file.write_text(ODD)
    before = rooms.load("objectives", str(file))
    assert rooms.load("objectives", str(file)) is before
    file.write_text(ODD.replace("class Odd:", "class Even:"))
    assert rooms.load("objectives", str(file)).__name__ == "Even"


def test_a_file_that_fails_says_so_each_time(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import nowhere_to_be_found")
    for _ in range(2):
        with pytest.raises(SpecError, match=r"broken\.py: cannot be imported: ModuleNotFoundError"):
            rooms.load("objectives", str(file))


def test_a_file_with_two_specs_needs_the_class(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text(ODD + "\n\n@spec\nclass Even:\n    x: int = 1\n")
    with pytest.raises(SpecError, match="exactly one public spec, it holds 2"):
        rooms.load("objectives", str(file))
    assert rooms.parse("objectives", f"{file}:Even:x=2").x == 2


def test_a_method_by_its_module(odd: str) -> None:
    value = rooms.parse("objectives", f"{odd}:count=2")
    assert rooms.text(value) == f"{odd}:count=2"


def test_a_method_of_an_installed_package(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("odd-one", odd, "grainline.objectives")
    found = importlib.metadata.entry_points
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda **k: [point] if k.get("group") == point.group else found(**k)
    )
    assert "odd-one" in rooms.names("objectives")
    assert "odd-one" not in rooms.names("adapters")
    assert rooms.parse("objectives", "odd-one:count=2").count == 2


# --------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(("room", "name"), OURS)
def test_the_files_name_is_the_methods_name(room: str, name: str) -> None:
    cls = rooms.load(room, name)
    module = cls.__module__.rpartition(".")[2]
    stated = getattr(sys.modules[cls.__module__], "name", None)
    assert rooms.name_of(cls) == name == (stated or module.replace("_", "-"))


def test_a_module_may_state_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "objectives").mkdir()
    for file, text in {
        "two_d.py": 'name = "2d"\n', "long_name.py": "", "_parts.py": "", "two_d_torch.py": "", "note.txt": ""
    }.items():  # fmt: skip
        (tmp_path / "objectives" / file).write_text(text)
    monkeypatch.setattr(rooms, "_HERE", tmp_path)
    assert rooms.names("objectives") == ["2d", "long-name"]


@pytest.mark.parametrize(("room", "name"), OURS)
def test_options_are_described_in_their_order(room: str, name: str) -> None:
    import dataclasses

    cls = rooms.load(room, name)
    stated = rooms.fields(cls)
    assert list(stated) == [field.name for field in dataclasses.fields(cls)]
    assert all(field["description"] for field in stated.values()), "every option says what it does"
    assert all("default" in field for field in stated.values()), "every option has a default"


def test_rooms_import_no_torch() -> None:
    program = (
        "import sys; from grainline import rooms\n"
        "for room in rooms.FOLDERS:\n"
        "    for name in rooms.names(room): rooms.text(rooms.parse(room, name))\n"
        "assert not {'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_spec_is_only_what_its_own_module_defines() -> None:
    module = types.ModuleType("borrowed")
    module.DPO = rooms.load("objectives", "dpo")  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match="it holds 0"):
        rooms._spec_class(module)
