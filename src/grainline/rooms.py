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
             key "." role "=" value                   lr_scale.up=16      (one entry of a map)
    value    true | false | null | number | word | "quoted text"
             [value, value]                           a list
             {key: value, key: value}                 a map
             (choice)                                 a method inside a method

``+`` separates terms only with a space on each side, so 1e+3 is a number. :func:`parse` and :func:`text` are inverse.
Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pydantic

from grainline.errors import SpecError, nearest

ROOMS = ("supervision", "objectives", "adapters", "optimizers")
"""The folders whose files are methods. Presets are listed beside them but are recipes, not methods."""

_HERE = Path(__file__).parent
_TERM = re.compile(r"\s*(?:(?P<coefficient>[-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*\*\s*)?(?P<body>.*)", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_BARE = re.compile(r"[^\s,:=+*()\[\]{}\"'][^,=()\[\]{}\"']*")


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
        try:
            return _spec_class(importlib.import_module(module), cls)
        except ModuleNotFoundError as error:
            raise SpecError(f"no module {error.name!r}", where=f"{room}: {name}") from error
    raise SpecError(f"no method {name!r} in {room}/.", instead=nearest(name, names(room)))


def fields(cls: type) -> dict[str, dict[str, Any]]:
    """Options of a spec: name -> {"type", "default", "description"}, as the JSON schema states them."""
    schema = pydantic.TypeAdapter(cls).json_schema()
    return {key: value | {"description": value.get("description", "")} for key, value in schema["properties"].items()}


def summary(cls: type) -> dict[str, Any]:
    """What ``grainline ls`` prints of a method."""
    doc = inspect.getdoc(sys.modules[cls.__module__]) or ""
    return {
        "name": name_of(cls),
        "title": doc.partition("\n")[0],
        "paper": getattr(cls, "paper", ""),
        "needs": sorted(getattr(cls, "needs", ())),
    }


def name_of(cls: type) -> str:
    """The text name of a spec class: what one would type to get it."""
    module = sys.modules[cls.__module__]
    if cls.__module__.startswith("grainline."):
        return _name(Path(str(module.__file__)))
    origin = getattr(module, "__grainline_path__", cls.__module__)
    return f"{origin}:{cls.__name__}"


def _files(room: str) -> list[Path]:
    if room not in ROOMS:
        raise SpecError(f"no room {room!r}.", instead=nearest(room, ROOMS))
    return [p for p in sorted((_HERE / room).glob("*.py")) if not p.stem.startswith("_") and not p.stem.endswith("_torch")]


def _name(path: Path) -> str:
    stated = re.search(r'^name = "(.+)"$', path.read_text(encoding="utf-8"), re.MULTILINE)
    return stated[1] if stated else path.stem.replace("_", "-")


def _entry_points(room: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=f"grainline.{room}")}


def _split_class(name: str) -> tuple[str, str | None]:
    module, _, cls = name.partition(":")
    return module, cls or None


def _from_file(path: str, cls: str | None) -> type:
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise SpecError(f"no file {path!r}.", instead="Give a path to a .py file that holds one spec.")
    key = f"grainline_user_{abs(hash(file)):x}"
    if key not in sys.modules:
        found = importlib.util.spec_from_file_location(key, file)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules[key] = module
        module.__grainline_path__ = str(file)  # type: ignore[attr-defined]
        found.loader.exec_module(module)
    return _spec_class(sys.modules[key], cls)


def _spec_class(module: ModuleType, cls: str | None = None) -> type:
    own = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and pydantic.dataclasses.is_pydantic_dataclass(value)
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

    >>> resolve("objectives", {"name": "dpo", "beta": 0.2})
    DPO(beta=0.2, label_smoothing=0.0, divergence='reverse_kl', alpha=0.5)
    """
    if isinstance(choice, str):
        return parse(room, choice)
    if isinstance(choice, Mapping):
        options = dict(choice)
        if "name" not in options:
            raise SpecError(f"a choice for {room} written as a map needs a 'name'", instead=f"got {sorted(options)}.")
        return _build(room, str(options.pop("name")), options)
    return choice


def parse(room: str, choice: str) -> Any:
    """Text -> the frozen spec value.

    Raises:
        SpecError: unknown name, unknown or malformed option; the message offers the nearest.
    """
    terms = [_TERM.fullmatch(part) for part in _split(choice, " + ")]
    parsed = [(float(m["coefficient"] or 1), _parse_term(room, m["body"].strip())) for m in terms if m is not None]
    if len(parsed) == 1 and parsed[0][0] == 1:
        return parsed[0][1]
    return _adder(room)(terms=tuple(parsed))


def text(value: Any) -> str:
    """The spec value -> the text that makes it again: its name and the options that differ from their defaults."""
    if hasattr(value, "terms"):
        return " + ".join(f"{_scalar(c)}*{text(term)}" if c != 1 else text(term) for c, term in value.terms)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return getattr(value, "__name__", type(value).__name__)
    changed = [
        f"{field.name}={_format(getattr(value, field.name))}"
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != _default(field)
    ]
    return name_of(type(value)) + (":" + ",".join(changed) if changed else "")


def _parse_term(room: str, term: str) -> Any:
    name, options = term, ""
    parts = term.split(":")
    if ".py" in term or "." in parts[0]:  # a user's own method: the class is part of its name
        has_class = len(parts) > 1 and "=" not in parts[1]
        name, options = ":".join(parts[: 2 if has_class else 1]), ":".join(parts[2 if has_class else 1 :])
    else:
        name, _, options = term.partition(":")
    found: dict[str, Any] = {}
    for part in _split(options, ",") if options.strip() else []:
        key, equals, value = part.partition("=")
        if not equals:
            raise SpecError(f"option {part.strip()!r} has no value", where=term, instead="Write key=value.")
        key, _, role = key.strip().partition(".")
        if role:
            found.setdefault(key, {})[role] = _value(room, value)
        elif key in found:
            raise SpecError(f"option {key!r} stands twice", where=term)
        else:
            found[key] = _value(room, value)
    return _build(room, name.strip(), found)


def _build(room: str, name: str, options: dict[str, Any]) -> Any:
    cls = load(room, name)
    known = {field.name for field in dataclasses.fields(cls)}
    for key in options:
        if key not in known:
            raise SpecError(f"{name} has no option {key!r}.", instead=nearest(key, known))
    try:
        return cls(**options)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        option = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        said = f", got {first['input']!r}" if option else ""
        raise SpecError(f"{reason}{said}.", where=f"{name}{':' if option else ''}{option}") from None


def _adder(room: str) -> type:
    seam = importlib.import_module(f"grainline.{room}._seam")
    if not hasattr(seam, "Sum"):
        raise SpecError(f"{room} cannot be added or scaled", instead="Choose one method.")
    return seam.Sum


def _split(whole: str, separator: str) -> list[str]:
    """Split at ``separator`` outside brackets and quotes."""
    parts, depth, quote, start, i = [], 0, "", 0, 0
    while i < len(whole):
        char = whole[i]
        if quote:
            quote = "" if char == quote and whole[i - 1] != "\\" else quote
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth == 0 and whole.startswith(separator, i):
            parts.append(whole[start:i])
            i = start = i + len(separator)
            continue
        i += 1
    if depth or quote:
        raise SpecError(f"unclosed {quote or 'bracket'} in {whole!r}")
    return [*parts, whole[start:]]


def _value(room: str, raw: str) -> Any:
    raw = raw.strip()
    if raw[:1] == "(":
        return parse(room, raw[1:-1])
    if raw[:1] == "[":
        return [_value(room, part) for part in _split(raw[1:-1], ",")] if raw[1:-1].strip() else []
    if raw[:1] == "{":
        entries = [part.partition(":") for part in _split(raw[1:-1], ",")] if raw[1:-1].strip() else []
        return {key.strip(): _value(room, value) for key, _, value in entries}
    if raw[:1] in ("'", '"'):
        return raw[1:-1].replace(f"\\{raw[0]}", raw[0])
    if raw in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[raw]
    if _NUMBER.fullmatch(raw):
        return float(raw) if re.search(r"[.eE]", raw) else int(raw)
    return raw


def _format(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_format(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "[" + ", ".join(map(_format, value)) + "]"
    if dataclasses.is_dataclass(value):
        return f"({text(value)})"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = _BARE.fullmatch(value) and value == value.strip() and not _NUMBER.fullmatch(value)
        return value if plain and value not in ("true", "false", "null") else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _default(field: Any) -> Any:
    default = field.default
    if isinstance(default, pydantic.fields.FieldInfo):
        return default.get_default(call_default_factory=True)
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else default
