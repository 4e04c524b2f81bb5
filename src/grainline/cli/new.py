"""``grainline new``: the three files of a new method, ready to be filled."""

from __future__ import annotations

import keyword
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from grainline.errors import SpecError, UserError
from grainline.recipe.preset import ROOMS


def new(
    room: Annotated[str, typer.Argument(help="supervision, objective, adapter or optimizer.")],
    name: Annotated[str, typer.Argument(help="The method's name, as it will be typed: small letters and hyphens.")],
    dir: Annotated[str | None, typer.Option("--dir", help="Root of the checkout; else the one that runs.")] = None,
) -> None:
    """Write source, test and page of a new method.

    The three files are all that a method needs: it is listed, checked and documented because they are there. The test
    fails until its golden is written.

    \b
    Examples:
      grainline new objective margin-dpo
      grainline new adapter circulant --dir ~/grainline
    """
    from grainline.cli import _rooms

    folder = _rooms.room(room)
    if folder == "presets":
        raise UserError("a preset is not a method.", instead="Copy presets/cdpo.yaml and say what it combines.")
    module = module_name(name)
    if name in _rooms.names(folder):
        raise SpecError(f"{folder}/ has a method {name!r} already.", instead=f"See grainline show {folder} {name}.")
    written = write(Path(os.path.expanduser(dir)) if dir else checkout(), folder, module, name)
    for path in written:
        typer.echo(str(path))


_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def module_name(name: str) -> str:
    """File name of a method: ``margin-dpo`` -> ``margin_dpo``.

    Raises:
        SpecError: no module can be called so; the message says how such a method is named.
    """
    if name[:1].isdigit():
        spelled = f"{_DIGITS[int(name[0])]}-{name[1:].lstrip('-')}".rstrip("-")
        raise SpecError(
            f"a module may not begin with a digit, so not {name!r}.",
            instead=f'Spell it ({spelled}), then write name = "{name}" under the docstring of its module.',
        )
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or keyword.iskeyword(module) or module.endswith("_torch"):
        raise SpecError(f"{name!r} cannot be a method's name.", instead="Use small letters, digits and hyphens.")
    return module


def checkout() -> Path:
    """The root of the source tree that this installation runs from.

    Raises:
        UserError: it runs from an installed package.
    """
    import grainline

    root = Path(grainline.__file__).parents[2]
    if not (root / "pyproject.toml").is_file() or not (root / "src" / "grainline").is_dir():
        raise UserError("this grainline is installed, not checked out.", instead="Say where with --dir CHECKOUT.")
    return root


def write(root: Path, room: str, module: str, name: str) -> list[Path]:
    """Write the three files below ``root``.

    Raises:
        UserError: one of them exists; then none is written.
    """
    cls = "".join(word.capitalize() for word in module.split("_"))
    key = next(key for key, folder in ROOMS.items() if folder == room)
    words = {"NAME": name, "CLASS": cls, "ROOM_KEY": key, "ROOM": room}  # ROOM_KEY before ROOM, which it begins with
    files = {
        root / "src" / "grainline" / room / f"{module}.py": _HEAD[room] + _CLASS[room],
        root / "tests" / room / f"test_{module}.py": _TEST,
        root / "docs" / room / f"{name}.md": _PAGE,
    }
    for path in files:
        if path.exists():
            raise UserError("exists already.", where=str(path), instead="Nothing was written.")
    for path, template in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub("|".join(words), lambda word: words[word[0]], template), encoding="utf-8")
    return list(files)


_HEAD = {
    "supervision": '''"""One sentence in plain words.

Authors year, arXiv:0000.00000, Eq. 0. Say which tokens speak, and how loudly.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from grainline.types import Example, spec
''',
    "objectives": '''r"""One sentence in plain words.

Authors year, arXiv:0000.00000, Eq. 0:

.. math:: \\ell = ...

Tie every symbol to an argument. Say where this departs from the paper, or from another library.

Traps: what goes wrong without a noise, and what other tools mean by the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.types import Losses, spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Pairs
''',
    "adapters": '''r"""One sentence in plain words.

Authors year, arXiv:0000.00000, Eq. 0:

.. math:: y = W x + ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from grainline.types import spec

if TYPE_CHECKING:
    from torch import nn
''',
    "optimizers": '''r"""One sentence in plain words.

Authors year, arXiv:0000.00000, Algorithm 0:

.. math:: \\theta \\leftarrow \\theta - ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.optimizers._parts import ByRole
from grainline.types import Tagged, spec

if TYPE_CHECKING:
    from torch.optim import Optimizer
''',
}

_CLASS = {
    "supervision": '''

@spec
class CLASS:
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = "arXiv:0000.00000"

    scale: float = Field(default=1.0, gt=0)
    """What it does, its unit, and the paper's value."""

    def __call__(self, example: Example) -> Example:
        raise NotImplementedError("NAME: write which tokens speak")
''',
    "objectives": '''

@spec
class CLASS:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:0000.00000"

    beta: float = Field(default=0.1, gt=0)
    """What it does, its unit, and the paper's value."""

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        raise NotImplementedError("NAME: write the equation")
''',
    "adapters": '''

@spec
class CLASS:
    paper: ClassVar[str] = "arXiv:0000.00000"
    layouts: ClassVar[frozenset[str]] = frozenset({"tree", "packed", "padded"})
    roles: ClassVar[dict[str, str]] = {}
    changes_base: ClassVar[bool] = False

    rank: int = Field(default=16, ge=1)
    """What it does, and the paper's value."""

    def config(self, model: nn.Module) -> Any:
        raise NotImplementedError("NAME: write the PEFT configuration")
''',
    "optimizers": '''

@spec
class CLASS:
    paper: ClassVar[str] = "arXiv:0000.00000"

    lr: float = Field(default=1e-4, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Share of each matrix that a step takes away, per unit of learning rate."""
    lr_of: ByRole = Field(default_factory=dict)
    """Role -> its own learning rate in place of lr, written lr.ROLE, e.g. lr.magnitude=2e-3."""
    lr_scale: ByRole = Field(default_factory=dict)
    """Role -> factor on the learning rate, e.g. {up: 16}; roles that are not named have factor 1."""

    def __call__(self, parameters: Sequence[Tagged]) -> Optimizer:
        raise NotImplementedError("NAME: write the step of the groups that _parts.by_role(parameters, self) makes")
''',
}

_TEST = '''"""NAME: a number derived by hand, an independent comparison, and the property that the paper promises."""

from __future__ import annotations

import pytest

from grainline import rooms


def test_text_round_trip() -> None:
    value = rooms.parse("ROOM", "NAME")
    assert rooms.parse("ROOM", rooms.text(value)) == value


def test_golden() -> None:
    pytest.fail("write the golden: one number derived by hand, as an expression")
'''

_PAGE = """# NAME

One sentence: what it does that others do not.

**When to use it.**

**When not.**

**Traps.**

```
grainline align recipe.yaml ROOM_KEY=NAME
```
"""
