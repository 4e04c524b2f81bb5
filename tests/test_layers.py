"""Who may import whom: the table :data:`ALLOWED`, held against the syntax trees.

Every import counts, those inside functions too. Under ``TYPE_CHECKING`` the same arrows hold, except that anybody may
name the types of ``recipe``. A unit is a file or folder directly under ``grainline``; a unit that is not in the table
may import nothing of ours, so a new one begins with a decision here.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import grainline
from grainline import rooms

PACKAGE = Path(grainline.__file__).parent
ROOMS = frozenset(rooms.FOLDERS)
"""Here a stage whose files are methods is a room as well: the same rules, and what :data:`FURTHER` adds."""
SEAMS = frozenset(f"{room}._seam" for room in ROOMS)

CURRENCY = frozenset({"types", "errors"})
STAGES = frozenset({"data", "forward", "rewards", "curation", "evaluation"})
LOOP = frozenset({"checkpoint", "cpu", "reduction", "events", "checks", "coupling", "sharding"})
RUN = LOOP | {
    "trainer",
    "reference_cache",
    "layout_memory",
    "watch",
    "progress",
    "provenance",
    "models",
    "pretrained",
    "probe",
    "atomic",
}
RUN |= {"export", "geometry", "prepare", "engine", "claim", "atomic", "launch", "adapter_files", "heads", "synchronise"}
RUN |= {"first_look"}
SHARED = {
    "adapters": ("_frozen", "_givens", "_orthogonal", "_spectral", "_tuner"),
    "optimizers": ("_parts_torch",),
    "rewards": ("_rubric", "_verdicts", "_spread", "equilibrium"),
    "curation": (
        "_agreement",
        "_answering",
        "_asking",
        "_edits",
        "_embeddings",
        "_neighbours",
        "_ranking",
        "_revision",
    ),
}
"""Further shared modules of a room, beside _parts and _seam; or a folder, mathematics too long for one file. A folder's
files use each other, torch and the currency, and nothing else of ours."""
FURTHER = {
    "supervision": {"data"},  # where sentences are, which curation asks too
    "rewards": {"rooms", "data", "forward", "models", "pretrained", "generation", "atomic", "places", "progress"}
    | {"features", "shelf", "endpoint", "ledger"},  # frozen models; a model over the network; what they said once
    "curation": {"rooms", "data", "forward", "models", "pretrained", "generation", "atomic", "places", "progress"}
    | {"rewards._seam", "rewards._parts", "rewards._rubric"}  # which quotes what others wrote
    | {"conversation", "endpoint", "ledger"}  # who answers: a run, a model, a server
    | {"concordance"},
}
"""What a room or stage works with beside its own files."""
CHOICES = frozenset({"rooms", "recipe", "presets"})
# What only the command line asks for.
VERBS = frozenset(
    {
        "contract",
        "upkeep",
        "forecast",
        "rehearsal",
        "doctor",
        "machine",
        "cpu",
        "replay",
        "conversation",
        "curate",
        "generation",
        "reward_training",
        "scoring",
        "publish",
    }
)

ALLOWED: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "types": frozenset(),
    "geometry": frozenset(),
    "concordance": frozenset(),
    "peft_hook": frozenset({"adapters._tuner"}),
    "rooms": frozenset({"errors"}),
    "presets": frozenset(),
    "recipe": CURRENCY | {"rooms", "presets"},
    "pretrained": CURRENCY,
    "places": frozenset(),
    "cpu": frozenset({"machine"}),
    "ledger": frozenset(),
    "endpoint": CURRENCY | {"ledger"},
    "models": CURRENCY | {"pretrained", "atomic", "places", "cpu"},
    "probe": CURRENCY,
    "publish": CURRENCY,
    "launch": CURRENCY | CHOICES | {"models"},
    "adapter_files": CURRENCY,
    "as_lora": CURRENCY,
    "model_card": CURRENCY | {"models"},
    "export": CURRENCY | {"models", "probe", "atomic", "adapter_files", "as_lora", "model_card"},
    "contract": CURRENCY | SEAMS | {"models", "export", "as_lora", "first_look"},
    "first_look": CURRENCY | SEAMS | {"coupling", "cpu", "export", "forward", "recipe"},
    "claim": CURRENCY | CHOICES,
    "journal": CURRENCY | SEAMS | {"rooms", "data", "places", "progress", "provenance"},
    "curate": CURRENCY | SEAMS | {"journal", "rooms", "data", "atomic", "places", "progress", "provenance"},
    "prepare": CURRENCY | SEAMS | CHOICES | {"data", "progress", "curate", "atomic"},
    "engine": CURRENCY | SEAMS | STAGES | RUN | CHOICES,
    "batching": CURRENCY | CHOICES | {"data", "progress"},
    "data": CURRENCY,
    "forward": CURRENCY | {"cpu"},
    "generation": frozenset({"errors", "cpu"}),
    "scoring": CURRENCY | {"rooms", "data", "curate", "curation._seam"},
    "shelf": CURRENCY | {"atomic"},
    "features": CURRENCY | {"data", "forward", "models", "shelf", "progress"},
    "reward_training": CURRENCY
    | {"rooms", "data", "evaluation", "features", "models", "places", "progress", "provenance"}
    | {"rewards._seam", "rewards._parts", "rewards.head", "rewards.head_torch"},  # it makes what head opens
    # Answers are journalled (atomic) and made in parts that fit the memory (machine).
    "evaluation": CURRENCY | {"data", "forward", "generation", "atomic", "machine", "concordance"},
    # An evaluation's composition root: a run on a bench, the families asked of it, judged by rewards.
    "assessment": CURRENCY | STAGES | RUN | CHOICES | {"rewards._seam", "generation"},
    "upkeep": CURRENCY | {"contract", "export", "footprint", "cpu"},
    "reference_cache": CURRENCY | {"atomic"},
    "layout_memory": CURRENCY | {"forward", "models", "atomic"},
    "watch": CURRENCY | {"progress", "checkpoint"},
    "atomic": frozenset(),
    "checkpoint": CURRENCY | {"atomic"},
    "progress": CURRENCY,
    "provenance": CURRENCY | {"atomic"},
    "reduction": CURRENCY,
    "events": CURRENCY | {"reduction"},
    "checks": CURRENCY,
    "synchronise": CURRENCY | {"atomic", "checkpoint"},
    "sharding": CURRENCY | {"models"},
    "coupling": CURRENCY | {"forward", "reduction", "sharding"},
    "heads": CURRENCY | SEAMS | {"forward"},
    "trainer": CURRENCY | SEAMS | LOOP | {"forward"},
    "runs": CURRENCY | SEAMS | STAGES | RUN | CHOICES | {"assessment", "batching", "budget", "footprint", "report"},
    "budget": CURRENCY
    | SEAMS
    | CHOICES
    | {"data", "batching", "forward", "coupling", "engine", "footprint", "machine", "cpu"},
    "footprint": CURRENCY | {"forward"},
    "course": CURRENCY | CHOICES | {"data", "batching", "evaluation", "prepare", "engine", "trainer", "footprint"},
    "forecast": CURRENCY
    | SEAMS
    | CHOICES
    | {"models", "adapter_files", "prepare", "engine", "course", "footprint", "heads", "sharding"},
    "rehearsal": CURRENCY | SEAMS | STAGES | RUN | CHOICES | {"runs", "batching", "forecast", "footprint"},
    "machine": frozenset(),
    "doctor": CURRENCY | {"models", "provenance", "machine", "cpu"},
    "replay": CURRENCY | RUN | CHOICES | {"runs", "report"},
    "conversation": CURRENCY | CHOICES | {"data", "models", "export", "generation", "adapter_files"},
    "rounds": CURRENCY | {"runs", "curation", "evaluation"},
    "study": CURRENCY | {"runs", "curation", "evaluation"},
    "averaging": CURRENCY | {"runs", "curation", "evaluation"},
    "report": frozenset({"errors", "atomic"}),
    "cli": CURRENCY
    | SEAMS
    | STAGES
    | RUN
    | CHOICES
    | VERBS
    | {"runs", "assessment", "rounds", "study", "averaging", "report", "__init__"},
    "__init__": CURRENCY
    | SEAMS
    | STAGES
    | RUN
    | CHOICES
    | {"runs", "assessment", "rounds", "study", "averaging", "report", "peft_hook"},
    "__main__": frozenset({"cli"}),
}
"""Unit -> what it may import of ours, beside itself. Files in rooms follow :func:`allowed_in_room`."""

HEAVY = frozenset({"torch", "transformers", "peft", "accelerate", "datasets", "trl"})
"""Packages that take seconds to import, or bring one that does."""
LIGHT = CHOICES | {"__init__", "__main__", "cli", "errors", "types", "peft_hook"}
"""Units that import nothing heavy when they are imported, and of ours only each other; so are methods."""
NEVER_TORCH = frozenset({"report"})
"""Units that import nothing heavy at all, not even inside a function."""


class Import(NamedTuple):
    name: str  # dotted, absolute; for `from a import b`, a.b
    line: int
    typing: bool  # under TYPE_CHECKING
    deferred: bool  # inside a function


def imports(path: Path, root: Path) -> Iterator[Import]:
    """Every import of a module under ``root`` (the folder ``grainline``), wherever it stands."""
    package = ("grainline", *path.relative_to(root).parent.parts)

    def walk(node: ast.AST, typing: bool, deferred: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, typing, deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (above, node.module)))
            yield from (Import(f"{source}.{alias.name}", node.lineno, typing, deferred) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            named = (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))
            yield from (Import(str(name), node.lineno, typing, deferred) for name in named)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from (found for child in node.body for found in walk(child, True, deferred))
            yield from (found for child in node.orelse for found in walk(child, typing, deferred))
            return
        inside = deferred or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from (found for child in ast.iter_child_nodes(node) for found in walk(child, typing, inside))

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False, False)


def unit_of(name: str, root: Path) -> str:
    """``grainline.types.Losses`` -> ``types``; ``grainline.objectives.dpo.DPO`` -> ``objectives.dpo``."""
    parts = name.split(".")[1:]
    here = [part for part in parts[:1] if (root / part).is_dir() or (root / f"{part}.py").is_file()] or ["__init__"]
    if here[0] in ROOMS:
        inside = root / here[0] / parts[1] if len(parts) > 1 else root
        known = inside != root and (inside.is_dir() or inside.with_suffix(".py").is_file())
        here.append(parts[1] if known else "__init__")
    return ".".join(here)


def allowed_in_room(room: str, stem: str) -> set[str]:
    """A method: the currency, its room's shared modules and seam, and its own modules. The seam may use the parts.

    Modules with an underscore are shared mathematics; those other than _parts and _seam (``adapters/_tuner.py``) import
    torch, so methods with weights use them from their ``_torch`` siblings.
    """
    method = stem.removesuffix("_torch")
    shared = set(SHARED.get(room, ()))
    currency = {"_seam"} if room in STAGES else set()  # what passes between methods of a stage is defined in its seam
    own: dict[str, set[str]] = {"_parts": set(), "_seam": {"_parts"}, "__init__": set()} | {
        part: {"_parts", *shared, *currency} for part in shared
    }
    kept = {"atomic", "places"} if stem == "_spectral" else set()  # decompositions are worth keeping on disk
    mine = own.get(stem, {"_parts", "_seam", method, f"{method}_torch", *shared})
    return {*CURRENCY, *kept, *FURTHER.get(room, ()), *(f"{room}.{name}" for name in mine)}


def violations(root: Path) -> list[str]:
    """Each import that points where it may not, as ``file:line: what``."""
    found = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        unit = relative.parts[0].removesuffix(".py")
        in_room = unit in ROOMS and len(relative.parts) == 2
        allowed = allowed_in_room(unit, path.stem) if in_room else ALLOWED.get(unit, frozenset())
        if unit in ROOMS and not in_room:  # a folder in a room
            unit, allowed = ".".join(relative.parts[:2]), CURRENCY
        light = unit in LIGHT or (in_room and path.stem[0] != "_" and not path.stem.endswith("_torch"))
        for name, line, typing, deferred in imports(path, root):
            where = f"{relative}:{line}"
            top = name.split(".")[0]
            now = not typing and not deferred
            if top in HEAVY and ((light and now) or (unit in NEVER_TORCH and not typing)):
                found.append(f"{where}: imports {top} too early; {unit} is light, import it where it is used")
            if top != "grainline":
                continue
            target = unit_of(name, root)
            if (target == unit and not in_room) or (typing and target == "recipe"):
                continue
            if target not in allowed:
                may = ", ".join(sorted(allowed)) or "nothing of ours"
                found.append(f"{where}: {unit} imports {target}; it may import {may}")
            elif unit in LIGHT and now and target not in LIGHT:
                found.append(f"{where}: {unit} imports {target} too early; import it inside the function that uses it")
    return found


def test_imports_point_downhill() -> None:
    assert violations(PACKAGE) == []


# ------------------------------------------------------------------------------------ the loop never asks a name

ORDINARY_WORDS = frozenset({"none", "sequence", "miss", "bone"})
"""Methods whose names are also words of the language: for these only a comparison counts as asking."""


def compared(tree: ast.AST) -> set[str]:
    """String literals that something is compared with, looked up by, or matched against."""
    places = (ast.Compare, ast.MatchValue, ast.Dict, ast.Set, ast.Subscript)
    constants = (node for place in ast.walk(tree) if isinstance(place, places) for node in ast.walk(place))
    return {node.value for node in constants if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def names_asked(source: str, names: set[str]) -> list[str]:
    """Which methods the source text speaks of."""
    words = set(re.findall(r"[\w-]+", source)) | set(re.findall(r"\w+", source))
    return sorted((words & names - ORDINARY_WORDS) | (compared(ast.parse(source)) & names))


@pytest.mark.parametrize("file", ["trainer.py", *(f"forward/{p.name}" for p in (PACKAGE / "forward").glob("*.py"))])
def test_the_loop_never_asks_a_method_its_name(file: str) -> None:
    known = {name for room in rooms.ROOMS for name in rooms.names(room)}
    assert names_asked((PACKAGE / file).read_text(encoding="utf-8"), known | {n.replace("-", "_") for n in known}) == []


# --------------------------------------------------------------------------------------------------- light import


def test_specs_are_read_without_torch() -> None:
    """Recipes, rooms and all methods answer without torch in the process; so does the command line."""
    code = """if True:
        import importlib.util, sys
        import grainline, grainline.recipe
        from grainline import rooms
        for room in rooms.FOLDERS:
            for name in rooms.names(room):
                cls = rooms.load(room, name)
                rooms.fields(cls), rooms.summary(cls), rooms.text(cls())
        if importlib.util.find_spec("grainline.cli"):
            import grainline.cli
        print(sorted({"torch", "transformers", "peft", "accelerate", "datasets", "trl"} & set(sys.modules)))
    """
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (said.stdout.strip(), said.returncode) == ("[]", 0), said.stderr


# ------------------------------------------------------------------------------------------- the checker is checked

PLANTED = {
    "a sibling method": ("objectives/dpo.py", "from grainline.objectives.sft import SFT", "imports objectives.sft"),
    "a sibling, relatively": ("objectives/dpo.py", "from .sft import SFT", "imports objectives.sft"),
    "a sibling, inside a function": (
        "objectives/dpo.py",
        "def f():\n    import grainline.objectives.sft",
        "dpo.py:2: ",
    ),
    "another room": ("objectives/dpo.py", "from grainline.adapters import _seam", "imports adapters._seam"),
    "upward": ("types.py", "import grainline.recipe", "types imports recipe; it may import nothing of ours"),
    "upward, by name": ("forward.py", "import importlib\nimportlib.import_module('grainline.runs')", "forward.py:2: "),
    "upward, from the package": ("forward.py", "from grainline import trainer", "forward imports trainer"),
    "upward, relatively": ("data/load.py", "from ..trainer import fit", "data imports trainer"),
    "upward, for a type": (
        "forward.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from grainline.runs import Run",
        "forward imports runs",
    ),
    "a method by name": ("trainer.py", "from grainline.objectives.dpo import DPO", "trainer imports objectives.dpo"),
    "a unit nobody decided on": ("novel.py", "from grainline.types import Losses", "novel imports types"),
    "torch in a method": ("objectives/dpo.py", "from torch import Tensor", "imports torch too early"),
    "torch in the recipe": (
        "recipe.py",
        "try:\n    import torch.nn\nexcept ImportError: ...",
        "imports torch too early",
    ),
    "torch in a report": ("report/page.py", "def f():\n    import torch", "imports torch too early"),
    "a method in a room's folder": (
        "objectives/folder/contour.py",
        "from grainline.objectives.dpo import DPO",
        "objectives.folder imports objectives.dpo",
    ),
    "a folder of another room": ("objectives/dpo.py", "from grainline.adapters import folder", "adapters.folder"),
    "the trainer in the command line": (
        "cli/align.py",
        "from grainline.runs import align",
        "cli imports runs too early",
    ),
}


FOLDER = ("adapters/folder/__init__", "rewards/equilibrium/__init__", "rewards/equilibrium/contour")


def plant(root: Path, file: str, code: str) -> Path:
    for name in (
        "types",
        "errors",
        "recipe",
        "rooms",
        "forward",
        "trainer",
        "runs",
        "models",
        "cli/align",
        "data/load",
    ):
        (root / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.py").touch()
    for name in (
        "objectives/dpo",
        "objectives/dpo_torch",
        "objectives/sft",
        "objectives/_parts",
        "adapters/_seam",
        *FOLDER,
    ):
        (root / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.py").touch()
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(code, encoding="utf-8")
    return root


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_import_is_caught(what: str, tmp_path: Path) -> None:
    file, code, message = PLANTED[what]
    (found,) = violations(plant(tmp_path, file, code))
    assert message in found


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("objectives/dpo.py", "from grainline.objectives._parts import halves\nfrom grainline.types import Losses"),
        ("objectives/dpo.py", "def f():\n    import torch\n    from grainline.objectives.dpo_torch import Head"),
        ("objectives/dpo.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor"),
        ("objectives/dpo_torch.py", "import torch\nfrom grainline.objectives.dpo import DPO"),
        ("forward.py", "import torch\nfrom grainline.types import LogProbs"),
        ("rewards/head_torch.py", "from grainline.rewards import equilibrium"),
        ("rewards/equilibrium/learner.py", "import torch\nfrom grainline.rewards.equilibrium.contour import circle"),
        (
            "models.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from grainline.recipe import ModelChoice",
        ),
        (
            "cli/align.py",
            "from grainline import rooms\ndef align():\n    from grainline.runs import align\n    import torch",
        ),
        ("data/load.py", "from grainline.data import check\nfrom . import columns"),
    ],
)
def test_a_proper_import_is_not(file: str, code: str, tmp_path: Path) -> None:
    assert violations(plant(tmp_path, file, code)) == []


def test_a_planted_question_is_caught() -> None:
    names = {"dpo", "2d-dpo", "two_d_dpo", "none", "sequence"}
    assert names_asked("if kind == 'dpo': ...", names) == ["dpo"]
    assert "2d-dpo" in names_asked("f('2d-dpo')", names)
    assert names_asked("import two_d_dpo", names) == ["two_d_dpo"]
    assert names_asked("match kind:\n    case 'none': ...", names) == ["none"]
    assert names_asked("loss(reduction='none')  # one for each sequence", names) == []
