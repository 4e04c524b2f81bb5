"""Rooms: the folder is the registry, and a method is written as text.

``objectives/dpo.py`` *is* the method ``dpo``: no list to keep in step, no decorator, no enum. A method's file holds one
public spec (see :data:`grainline.types.spec`); its name is the file's, with hyphens for underscores, or the module's
own ``name`` where a file may not carry it (``two_d_dpo.py`` says ``name = "2d-dpo"``). Methods from elsewhere are named
by ``package.module:Class``, by a path to a file, or offered by an installed package in the entry-point group
``grainline.<room>``.

The grammar of a choice::

    choice   sum of terms, in rooms that can add:     dpo + 0.2*bco
    term     [number "*"] name [":" field ("," field)*]
    field    key "=" value                            beta=0.1
             key "." role "=" value                   lr_scale.up=16      (one entry of a map, see :func:`place`)
    value    true | false | null | number | word | "quoted text"
             [value, value]                           a list
             {key: value, key: value}                 a map
             (choice)                                 a method inside a method, of a room that its seam may name

``+`` separates terms only with a space on each side, so 1e+3 is a number. :func:`parse` and :func:`text` are inverse.
Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pydantic

from grainline.errors import SpecError, nearest

ROOMS = ("supervision", "objectives", "adapters", "optimizers")
FOLDERS = (*ROOMS, "rewards", "curation")
"""A run chooses from the four rooms; the files of all six folders are methods. Presets are recipes, not methods."""

_HERE = Path(__file__).parent
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_TERM = re.compile(rf"\s*(?:(?P<coefficient>{_NUMBER.pattern})\s*\*\s*)?(?P<body>.*)", re.DOTALL)
_BARE = re.compile(r"[^\s,:=+*()\[\]{}\"'][^\s,:=()\[\]{}\"']*")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_WORDS = {"true": True, "false": False, "null": None}


# ---------------------------------------------------------------------------------------------- finding methods


def names(room: str) -> list[str]:
    """All methods of ``room``, sorted: the files of its folder and the entry points of installed packages."""
    return sorted({_name(path) for path in _files(room)} | set(_entry_points(room)))


def load(room: str, name: str) -> type:
    """The spec class called ``name`` in ``room``.

    Raises:
        SpecError: nothing is called so, or its module does not hold exactly one spec.
    """
    for path in _files(room):
        if _name(path) == name:
            return _spec_class(importlib.import_module(f"grainline.{room}.{path.stem}"))
    if name in (points := _entry_points(room)):
        return points[name].load()
    if name.endswith(".py") or ".py:" in name:
        return _from_file(*_split_class(name))
    if "." in name or ":" in name:
        module, cls = _split_class(name)
        if module.startswith("."):  # of which package? importlib asks; and "./file" is no module at all
            raise SpecError(f"no module {module!r}.", where=f"{room}: {name}", instead=nearest(module, names(room)))
        try:
            return _spec_class(importlib.import_module(module), cls)
        except ModuleNotFoundError as error:
            instead = "" if "." in module else nearest(module, names(room))
            raise SpecError(f"no module {error.name!r}.", where=f"{room}: {name}", instead=instead) from error
    raise SpecError(f"no method {name!r} in {room}/.", instead=nearest(name, names(room)))


def fields(cls: type) -> dict[str, dict[str, Any]]:
    """Options of a spec, as its source orders them: name -> its JSON schema, with "default" and "description"."""
    stated = pydantic.TypeAdapter(cls).json_schema().get("properties", {})
    found = {}
    for field in dataclasses.fields(cls):
        made = {} if field.default_factory is dataclasses.MISSING else {"default": field.default_factory()}
        if isinstance(field.default, pydantic.fields.FieldInfo) and field.default.default_factory is not None:
            made = {"default": _default(field)}
        found[field.name] = {"description": "", **made, **stated.get(field.name, {})}
    return found


def summary(cls: type) -> dict[str, Any]:
    """What ``grainline ls`` prints of a method."""
    return {
        "name": name_of(cls),
        "title": (inspect.getdoc(sys.modules[cls.__module__]) or "").partition("\n")[0],
        "paper": getattr(cls, "paper", ""),
        "needs": sorted(getattr(cls(), "needs", ())),
    }


def name_of(cls: type) -> str:
    """The text name of a spec class: what one would type to get it."""
    module = sys.modules[cls.__module__]
    if cls.__module__.startswith("grainline."):
        return _name(Path(str(module.__file__)))
    origin = getattr(module, "__grainline_path__", cls.__module__)
    return f"{origin}:{cls.__name__}"


def _files(room: str) -> list[Path]:
    if room not in FOLDERS:
        raise SpecError(f"no room {room!r}.", instead=nearest(room, FOLDERS))
    return [path for path in sorted((_HERE / room).glob("[!_]*.py")) if not path.stem.endswith("_torch")]


@functools.cache
def _name(path: Path) -> str:
    stated = re.search(r'^name = "(.+)"$', path.read_text(encoding="utf-8"), re.MULTILINE)
    return stated[1] if stated else path.stem.replace("_", "-")


def _entry_points(room: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=f"grainline.{room}")}


def _split_class(name: str) -> tuple[str, str | None]:
    module, _, cls = name.partition(":")
    return module, cls or None


def _from_file(path: str, cls: str | None) -> type:
    file = Path(os.path.expanduser(path)).resolve()
    if not file.is_file():
        raise SpecError(f"no file {path!r}.", instead="Give a path to a .py file that holds one spec.")
    key = f"grainline_user_{abs(hash((file, file.read_bytes()))):x}"  # a file that was changed since is another module
    if key not in sys.modules:
        found = importlib.util.spec_from_file_location(key, file)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules[key] = module
        module.__grainline_path__ = str(file)  # type: ignore[attr-defined]
        try:
            found.loader.exec_module(module)
        except Exception as error:
            del sys.modules[key]  # half a module must not be found by the next call
            raise SpecError(f"cannot be imported: {type(error).__name__}: {error}", where=path) from error
    return _spec_class(sys.modules[key], cls)


def _spec_class(module: ModuleType, cls: str | None = None) -> type:
    own = {
        key: value
        for key, value in inspect.getmembers(module, inspect.isclass)
        if value.__module__ == module.__name__ and pydantic.dataclasses.is_pydantic_dataclass(value)
    }
    if cls is not None:
        if cls not in own:
            raise SpecError(f"{module.__name__} has no spec {cls!r}.", instead=nearest(cls, own))
        return own[cls]
    public = [value for key, value in own.items() if not key.startswith("_")]
    if len(public) != 1:
        raise SpecError(
            f"{module.__name__} must hold exactly one public spec, it holds {len(public)}.",
            instead="Decorate one class with grainline.types.spec, or name it: module:Class.",
        )
    return public[0]


# ---------------------------------------------------------------------------------------------- text <-> value


def resolve(room: str, choice: Any) -> Any:
    """A choice as it may be written (text, mapping with a ``name``, or the value itself) -> the spec value.

    >>> text(resolve("objectives", {"name": "dpo", "beta": 0.2}))
    'dpo:beta=0.2'
    """
    if isinstance(choice, str):
        return parse(room, choice)
    if isinstance(choice, Mapping):
        return _build(room, *_options_of_map(room, choice))
    if dataclasses.is_dataclass(choice) and not isinstance(choice, type):
        return choice
    raise SpecError(f"{room} cannot be {choice!r}.", instead="Write a method as text, NAME or NAME:key=value.")


def options(room: str, choice: Any) -> tuple[str, dict[str, Any]] | None:
    """A choice as it is written -> (name, the options that stand there), nothing looked up; None for a sum or a value.

    >>> options("objectives", "dpo:beta=0.2")
    ('dpo', {'beta': 0.2})
    """
    if isinstance(choice, Mapping):
        return _options_of_map(room, choice)
    if not isinstance(choice, str):
        return None
    terms = _terms(choice)
    return _read_term(room, terms[0][1]) if len(terms) == 1 and terms[0][0] == 1 else None


def parse(room: str, choice: str) -> Any:
    """Text -> the frozen spec value.

    Raises:
        SpecError: unknown name, unknown or malformed option; the message offers the nearest.
    """
    parsed = [(coefficient, _build(room, *_read_term(room, body))) for coefficient, body in _terms(choice)]
    if len(parsed) == 1 and parsed[0][0] == 1:
        return parsed[0][1]
    return made(choice, _adder(room), {"terms": tuple(parsed)})


def place(room: str, path: Sequence[str]) -> tuple[str, ...]:
    """Where an option written with dots is kept: an optimizer's ``lr.up`` is the entry ``up`` of its ``lr_of``."""
    key, *role = path
    entries = getattr(importlib.import_module(f"grainline.{room}._seam"), "ENTRIES", {}) if role else {}
    return (entries.get(key, key), *role)


def text(value: Any) -> str:
    """The spec value -> the text that makes it again: its name and the options that differ from their defaults."""
    if hasattr(value, "terms"):
        return " + ".join(f"{_scalar(c)}*{text(term)}" if c != 1 else text(term) for c, term in value.terms)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return getattr(value, "__name__", type(value).__name__)
    changed = {
        field.name: getattr(value, field.name)
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != _default(field)
    }
    changed |= changed.pop(getattr(value, "rest", ""), {})  # another library's options stand beside our own
    written = [f"{key}={_format(option)}" for key, option in changed.items()]
    return name_of(type(value)) + (":" + ",".join(written) if written else "")


def _terms(choice: str) -> list[tuple[float, str]]:
    terms = [_TERM.fullmatch(part) for part in _split(choice, " + ")]
    return [(float(term["coefficient"] or 1), term["body"].strip()) for term in terms if term is not None]


def _options_of_map(room: str, choice: Mapping[Any, Any]) -> tuple[str, dict[str, Any]]:
    found = {str(key): value for key, value in choice.items()}
    if "name" not in found:
        raise SpecError(f"a choice for {room} written as a map needs a 'name', got {sorted(found)}.")
    return str(found.pop("name")), found


def _read_term(room: str, term: str) -> tuple[str, dict[str, Any]]:
    name, _, written = term.partition(":")
    cls, _, rest = written.partition(":")
    if cls.isidentifier() and (rest or name not in names(room)):  # a user's own method: the class is part of its name
        name, written = f"{name}:{cls}", rest
    found: dict[str, Any] = {}
    for part in _split(written, ",") if written.strip() else []:
        path, equals, value = part.partition("=")
        if not equals:
            raise SpecError(f"option {part.strip()!r} has no value.", where=term, instead="Write key=value.")
        key, *role = place(room, path.strip().split(".", 1))
        entries = found.setdefault(key, {}) if role else found
        last = role[0] if role else key
        if not isinstance(entries, dict) or last in entries:
            raise SpecError(f"option {path.strip()!r} stands twice.", where=term)
        entries[last] = _value(room, value)
    return name.strip(), found


def _build(room: str, name: str, options: dict[str, Any]) -> Any:
    cls: Any = load(room, name)
    rest = getattr(cls, "rest", None)  # this field takes what another library calls its options
    if rest and (others := {key: options.pop(key) for key in [*options] if key not in cls.__dataclass_fields__}):
        options[rest] = {**options.get(rest, {}), **others}
    return made(name, cls, options)


def made(name: str, cls: type, options: Mapping[str, Any]) -> Any:
    """A spec with these options, or a SpecError about one of them; ``name`` is what the user calls it."""
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := next((key for key in options if key not in known), None):
        raise SpecError(f"{name} has no option {unknown!r}.", instead=nearest(unknown, known))
    try:
        return cls(**options)
    except pydantic.ValidationError as error:
        first, *_ = error.errors()
        option = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
        said, where = (f", got {first['input']!r}", f"{name}:{option}") if option else ("", name)
        raise SpecError(f"{reason}{said}.", where=where) from None


def _adder(room: str) -> type:
    seam = importlib.import_module(f"grainline.{room}._seam")
    if not hasattr(seam, "Sum"):
        raise SpecError(f"{room} cannot be added or scaled.", instead="Choose one method.")
    return seam.Sum


def _split(whole: str, separator: str) -> list[str]:
    """Split at ``separator`` outside brackets and quotes."""
    parts, closing, quote, start, i = [], "", "", 0, 0
    while i < len(whole):
        char = whole[i]
        if quote:
            i += char == "\\"  # the next character is escaped
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in _CLOSING:
            closing += _CLOSING[char]
        elif char in ")]}":
            if not closing.endswith(char):
                raise SpecError(f"{char!r} closes nothing in {whole!r}.")
            closing = closing[:-1]
        elif not closing and whole.startswith(separator, i):
            parts.append(whole[start:i])
            i = start = i + len(separator)
            continue
        i += 1
    if closing or quote:
        raise SpecError(f"{quote or closing[-1]!r} is missing in {whole!r}.")
    return [*parts, whole[start:]]


def _value(room: str, raw: str) -> Any:
    raw = raw.strip()
    if raw[:1] in _CLOSING:
        if not raw.endswith(_CLOSING[raw[0]]):
            raise SpecError(f"something stands behind the bracket in {raw!r}.")
        return _bracketed(room, raw[0], raw[1:-1].strip())
    if raw[:1] in ("'", '"'):
        return _quoted(raw)
    if raw in _WORDS:
        return _WORDS[raw]
    if _NUMBER.fullmatch(raw):
        return float(raw) if re.search(r"[.eE]", raw) else int(raw)
    return raw


def _bracketed(room: str, bracket: str, inside: str) -> Any:
    if bracket == "(":
        return parse(getattr(importlib.import_module(f"grainline.{room}._seam"), "NESTED", room), inside)
    parts = _split(inside, ",") if inside else []
    if bracket == "[":
        return [_value(room, part) for part in parts]
    entries = {}
    for part in parts:
        key, *value = _split(part, ":")
        if not value:
            raise SpecError(f"{part.strip()!r} has no value.", instead="Write {key: value}.")
        entries[_quoted(key.strip()) if key.strip()[:1] in ("'", '"') else key.strip()] = _value(room, ":".join(value))
    return entries


def _quoted(raw: str) -> str:
    """Text in double quotes is JSON's; in single quotes a backslash only saves the quote and itself."""
    try:
        if raw[0] == '"':
            return json.loads(raw)
    except json.JSONDecodeError:
        raise SpecError(f"{raw} is not a text in quotes.", instead='Write "..." with JSON escapes.') from None
    if len(raw) < 2 or raw[-1] != "'":
        raise SpecError(f"something stands behind the quotes in {raw!r}.")
    return re.sub(r"\\(['\\])", r"\1", raw[1:-1])


def _format(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(str(key))}: {_format(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = list(map(_format, value))  # of a set sorted: the same text in every process
        return "[" + ", ".join(parts if isinstance(value, (list, tuple)) else sorted(parts)) + "]"
    if dataclasses.is_dataclass(value):
        return f"({text(value)})"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, (str, Path)):
        word = str(value)
        plain = _BARE.fullmatch(word) and not _NUMBER.fullmatch(word) and word not in _WORDS
        return word if plain else json.dumps(word, ensure_ascii=False)
    return json.dumps(value)


def _default(field: Any) -> Any:
    default = field.default
    if isinstance(default, pydantic.fields.FieldInfo):
        return default.get_default(call_default_factory=True)
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else default
