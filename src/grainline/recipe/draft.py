"""A recipe on its way from a file and the command line to a value: paths with what stands there, and where it was said.

A draft is flat: ``("model", "dtype") -> "bfloat16"``. So a file, an override and a preset are merged by the same rule,
each message can name its source, and a room's options can be set one by one. Of a room, ``("objective",)`` holds the
method's name and ``("objective", "beta")`` an option; a sum, or a ready value, stands at ``("objective",)`` as a whole.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from grainline import rooms
from grainline.errors import RecipeError, SpecError, nearest
from grainline.recipe import aliases, yamls
from grainline.recipe.preset import ROOMS, presets

Place = tuple[str, ...]
Keys = Callable[[Place], Collection[str] | None]
"""Place -> the keys that may stand there; None where it holds a value, not keys."""
ANY: Collection[str] = ()
"""What :data:`Keys` answers where the user chooses the keys."""


class Draft:
    """What was said so far. ``keys`` knows which keys exist; ``notice`` is called with each remark for the user."""

    def __init__(self, keys: Keys, notice: Callable[[str], None]) -> None:
        self.said: dict[Place, Any] = {}
        self.where: dict[Place, str] = {}
        self._keys, self._notice = keys, notice

    def take_mapping(self, given: Any, where: str) -> None:
        """Take what a file or a mapping says.

        Raises:
            RecipeError: not a mapping, an unknown key, or one thing said twice.
        """
        if given is None:
            raise RecipeError("the recipe is empty.", where=where, instead="Write at least model and data.")
        if not isinstance(given, Mapping):
            raise RecipeError(f"a recipe is a mapping of keys, not {_kind(given)}.", where=where)
        self._take({str(key): value for key, value in given.items()}, where=lambda key: where)

    def take_overrides(self, overrides: Sequence[str]) -> None:
        """Take ``key=value`` texts; each replaces what was said of its key, a dotted key only that part.

        Raises:
            RecipeError: no ``=``, an unknown key, or one key twice.
        """
        given: dict[str, Any] = {}
        for override in overrides:
            key, equals, text = override.partition("=")
            key = key.strip()
            if not equals or not key:
                raise RecipeError(f"{override!r} is not an override.", instead="Write key=value.")
            if key in given:
                raise RecipeError(f"{key} stands twice among the overrides.", instead="Leave one.")
            given[key] = text.strip() if key in ROOMS else _scalar(text, override)
        self._take(given, where=lambda key: f"override {key}={given[key]}")

    def _take(self, given: Mapping[str, Any], where: Callable[[str], str]) -> None:
        new: dict[Place, Any] = {}
        origin: dict[Place, str] = {}
        for key, value, source in self._ours(given, where):
            place = _place(key)
            for end in range(1, len(place) + 1):
                self._check(place[:end], source)
            entries = self._flat(place, value, source)
            for twice in new.keys() & entries.keys():
                raise RecipeError(f"{'.'.join(twice)} is stated twice.", where=source, instead="Leave one.")
            new |= entries
            origin |= dict.fromkeys(entries, source)
            if not (place == ("model",) and isinstance(value, str)):  # another model's name alone keeps dtype and so on
                self._forget(place)
        self.said |= new
        self.where |= origin

    def _ours(self, given: Mapping[str, Any], where: Callable[[str], str]) -> list[tuple[str, Any, str]]:
        """(key, value, source) with aliases rewritten; whole choices first, so that options find their method."""
        found, rewritten = [], []
        for key, value in given.items():
            try:
                translated = None if key in (self._keys(()) or ()) else aliases.translate(key, value, given)
            except RecipeError as error:
                raise RecipeError(error.what, where=where(key), instead=error.instead) from None
            if translated is None:
                found.append((key, value, where(key)))
                continue
            ours, remark = translated
            self._notice(f"{where(key)}: {remark}" if not where(key).startswith("override") else remark)
            rewritten += [(name, value, where(key)) for name, value in ours.items()]
        for i, entry in enumerate(rewritten):  # the factors of a product say the same thing: once is enough
            if all(entry[:2] != earlier[:2] for earlier in rewritten[:i]):
                found.append(entry)
        return sorted(found, key=lambda entry: entry[0].count("."))

    def _forget(self, place: Place) -> None:
        for old in [old for old in self.said if old[: len(place)] == place]:
            del self.said[old], self.where[old]

    def _check(self, place: Place, where: str) -> None:
        if place[0] in ROOMS and len(place) > 1:
            return  # the room knows its methods' options
        known = self._keys(place[:-1])
        shown = ".".join(place)
        if known is None:
            raise RecipeError(f"{'.'.join(place[:-1])} has no parts, so {shown!r} cannot be set.", where=where)
        if known is not ANY and place[-1] not in known:
            theirs = difflib.get_close_matches(shown, aliases.names(), n=1, cutoff=0.85)
            hint = f"Did you mean {theirs[0]!r}?" if theirs else nearest(place[-1], known)
            raise RecipeError(f"no key {shown!r}.", where=where, instead=hint)

    def _flat(self, place: Place, value: Any, where: str) -> dict[Place, Any]:
        """Places and values below ``place``, with every shorthand written out."""
        if place[0] in ROOMS:
            return _flat_room(place, value, where)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        if place == ("model",) and isinstance(value, str):
            return {(*place, "name"): value}
        if place == ("data",) or (len(place) == 3 and place[:2] == ("evaluation", "data")):
            if isinstance(value, str):
                return {(*place, "path"): value}
            if place == ("data",) and isinstance(value, (list, tuple)):
                return {place: [self._source(place, item, where) for item in value]}
        if place == ("evaluation", "data"):
            value = self._named(value, where)
        if self._keys(place) is None:
            return {place: value}
        if not isinstance(value, Mapping):
            raise RecipeError(f"{'.'.join(place)} cannot be {_kind(value)}.", where=where, instead=_instead(place))
        found: dict[Place, Any] = {}
        for key, item in value.items():
            self._check((*place, str(key)), where)
            found |= self._flat((*place, str(key)), item, where)
        return found

    def _source(self, place: Place, item: Any, where: str) -> dict[str, Any]:
        """One source of a mixture as a mapping."""
        if isinstance(item, (list, tuple)):
            raise RecipeError("a list of data holds files or mappings, not lists.", where=where)
        return {inner[-1]: value for inner, value in self._flat(place, item, where).items()}

    def _named(self, value: Any, where: str) -> Any:
        """Evaluation data with names: a set that has none is called as its file, without its endings."""
        if isinstance(value, Mapping) and isinstance(value.get("path"), (str, os.PathLike)):
            value = [value]
        if isinstance(value, (str, os.PathLike)):
            value = [value]
        if not isinstance(value, (list, tuple)):
            return value
        named: dict[str, Any] = {}
        for item in value:
            path = item.get("path") if isinstance(item, Mapping) else getattr(item, "path", item)
            name = Path(str(path)).name.partition(".")[0]
            if name in named:
                raise RecipeError(
                    f"two evaluation sets would be called {name!r}.",
                    where=where,
                    instead="Name them: evaluation.data: {NAME: PATH}.",
                )
            named[name] = item
        return named

    def expand_presets(self) -> None:
        """Replace each preset by its choices; options beside its name override those of its own room.

        Raises:
            RecipeError: a preset of another room, or a room that was chosen as well.
        """
        for key, room in ROOMS.items():
            name = self.said.get((key,))
            if not isinstance(name, str) or name not in presets() or name in rooms.names(room):
                continue
            where, preset = self.where[(key,)], presets()[name]
            if key not in preset.choices:
                instead = " ".join(f"Write {other}={name}." for other in preset.choices)
                raise RecipeError(f"preset {name!r} does not set {key}.", where=where, instead=instead)
            for other, choice in preset.choices.items():
                entries = _flat_room((other,), choice, f"preset {name}")
                also = [place for place in self.said if place[0] == other]
                if other != key and also:
                    what = f"{other} is set by preset {name!r} too."
                    raise RecipeError(what, where=self.where[also[0]], instead="Leave one.")
                self.said = {**entries, **self.said, (other,): entries[(other,)]}
                self.where = {**dict.fromkeys(entries, where), **self.where}

    def nested(self) -> dict[str, Any]:
        """The draft as a mapping; rooms are left to :meth:`choice`."""
        tree: dict[str, Any] = {}
        for place, value in sorted(self.said.items(), key=lambda entry: len(entry[0])):
            if place[0] not in ROOMS:
                _put(tree, place, value, self.where[place])
        return tree

    def choice(self, key: str, default: str) -> Any:
        """The spec value of a room, resolved.

        Raises:
            SpecError: an unknown method or option, or a value it refuses; the message names the room.
        """
        said = {place: value for place, value in self.said.items() if place[0] == key}
        head = said.pop((key,), default)
        where = self.where.get((key,)) or next((self.where[place] for place in said), "")
        try:
            if not said and not isinstance(head, str):
                return rooms.resolve(ROOMS[key], head.whole if isinstance(head, Whole) else head)
            if isinstance(head, Whole):
                written = ".".join(next(iter(said)))
                instead = "Write the option inside the text."
                raise SpecError(f"{written} cannot be set, {key} is not one named method.", instead=instead)
            options: dict[str, Any] = {}
            for place, value in sorted(said.items(), key=lambda entry: len(entry[0])):
                _put(options, place[1:], value, self.where[place])
            return rooms.resolve(ROOMS[key], {**options, "name": head})
        except SpecError as error:
            source = f"{where}: {key}" if where else key
            instead = error.instead
            if isinstance(head, str) and error.what.startswith(f"no method {head!r}"):
                fitting = [name for name, preset in presets().items() if key in preset.choices]
                instead = nearest(head, [*rooms.names(ROOMS[key]), *fitting])
            source += f": {error.where}" if error.where else ""
            raise SpecError(error.what, where=source, instead=instead) from None

    def steps(self, key: str) -> tuple[Any, ...]:
        """The spec values of a list of steps of curation, resolved.

        Raises:
            SpecError: an unknown step or option, or a value it refuses.
        """
        said = self.said.get((key,), ())
        steps = said if isinstance(said, (list, tuple)) else [said]
        try:
            return tuple(rooms.resolve("curation", step) for step in steps)
        except SpecError as error:
            source = ": ".join(filter(None, (self.where[(key,)], key, error.where)))
            raise SpecError(error.what, where=source, instead=error.instead) from None

    def source(self, place: Place) -> str:
        """Where the value at ``place``, or the nearest thing around it, was said."""
        for end in range(len(place), 0, -1):
            for said, where in self.where.items():
                if said[:end] == place[:end]:
                    return where
        return ""


@dataclasses.dataclass(frozen=True)
class Whole:
    """A choice that has no single name: a sum, or a ready value."""

    whole: Any


def _place(key: str) -> Place:
    first, *rest = key.split(".")
    return (first, *(rooms.place(ROOMS[first], rest) if first in ROOMS and rest else rest))


def _flat_room(place: Place, value: Any, where: str) -> dict[Place, Any]:
    if len(place) > 1:
        if isinstance(value, Mapping) and value:
            parts = [_flat_room((*place, str(key)), part, where) for key, part in value.items()]
            return {inner: leaf for part in parts for inner, leaf in part.items()}
        return {place: value}
    room = ROOMS[place[0]]
    try:
        read = rooms.options(room, value)
    except SpecError as error:
        raise SpecError(error.what, where=f"{where}: {place[0]}", instead=error.instead) from None
    if read is None:
        return {place: Whole(value)}
    name, options = read
    found: dict[Place, Any] = {place: name}
    for key, option in options.items():
        found |= _flat_room((*place, key), option, where)
    return found


def _put(tree: dict[str, Any], place: Place, value: Any, where: str) -> None:
    for key in place[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"{'.'.join(place)} cannot be set: {key} is {_kind(tree)}.", where=where)
    tree[place[-1]] = value


def _scalar(text: str, override: str) -> Any:
    """The value of an override: YAML where it is YAML (numbers, lists, maps, null), else the text itself."""
    try:
        return yamls.read(text, f"override {override!r}")
    except RecipeError:
        return text


def _kind(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", tuple: "a list", str: f"text ({value!r})", type(None): "null"}
    return kinds.get(type(value), repr(value))


def _instead(place: Place) -> str:
    if place == ("evaluation",):
        return "Write evaluation: {data: PATH}."
    return "Write a path, or a mapping with a path." if "data" in place else "Write a mapping."
