"""YAML without its surprises: a key stands once, ``off`` is a word, ``1e-4`` a number and ``010`` ten.

PyYAML follows YAML 1.1, where a second key silently wins, ``reference: off`` is false, ``1e-4`` is text, ``010`` is
eight and ``1:30`` is ninety. Here plain scalars follow the core schema of YAML 1.2, and only safe tags are read.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from grainline.errors import RecipeError


def read(text: str, where: str) -> Any:
    """The value that ``text`` states; ``where`` names it in messages.

    Raises:
        RecipeError: it is not YAML, or a key stands twice; the message gives the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        instead = "Indent with spaces, not tabs." if "\\t" in str(error.problem) else ""
        raise RecipeError(f"{error.problem or error.context}.", where=f"{where}{line}", instead=instead) from None
    except yaml.YAMLError as error:
        raise RecipeError(f"not YAML: {' '.join(str(error).split())}.", where=where) from None


def write(value: Any) -> str:
    """``value`` as YAML that :func:`read`, and a reader of YAML 1.1, give back as it was; keys keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


_FLOAT = re.compile(r"([-+]?(\.\d+|\d+\.?\d*)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))  # so that "1e5" gets quotes


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"key {key.value!r} stands twice, first in line {seen[key.value]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen[str(key.value)] = line
        return super().construct_mapping(node, deep=deep)


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)$")
_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?\d+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    _FLOAT,
    list("-+.0123456789"),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<$"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
