"""Provenance: what is gathered, and files that are written whole."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path

import torch

from grainline import provenance, rooms
from grainline.rewards import _rubric

REWARD = '''"""A reward of one's own."""

from grainline.types import spec


@spec
class Mine:
    between = (0.0, 1.0)
    needs = frozenset()

    depth: int = 1
'''


def test_versions_and_hardware() -> None:
    facts = provenance.gathered()
    assert facts["python"] == platform.python_version()
    assert set(facts["versions"]) == set(provenance.PACKAGES)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["machine"]["threads"] == torch.get_num_threads()
    assert facts["machine"]["cuda"] is None
    assert facts["time"].endswith("Z")


def test_written_as_json_even_where_json_has_no_type(tmp_path: Path) -> None:
    provenance.write(tmp_path / "p.json", {"dtype": torch.float32, "device": torch.device("cpu"), "rows": 3})
    assert json.loads((tmp_path / "p.json").read_text()) == {"dtype": "torch.float32", "device": "cpu", "rows": 3}


def test_flat_for_trackers() -> None:
    tree = {"model": {"name": "m", "revision": None}, "data": [{"path": "d"}], "steps": 3, "on": True, "lr": 0.1}
    assert provenance.flat(tree) == {
        "model.name": "m", "model.revision": "None", "data": "[{'path': 'd'}]", "steps": 3, "on": True, "lr": 0.1,
    }  # fmt: skip


def test_a_digest_is_of_all_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.txt", "in/a.bin"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    each = [hashlib.sha256(name.encode()).hexdigest() for name in ("b.txt", "in/a.bin")]
    assert provenance.sha256(tmp_path / "b.txt") == each[0]
    assert provenance.digest(tmp_path) == hashlib.sha256("".join(each).encode()).hexdigest()
    assert provenance.digest(tmp_path / "none") == ""


def test_what_a_method_reads_is_found_however_deep_it_stands(tmp_path: Path) -> None:
    """The files of rewards inside a step, of members inside a jury, and of methods of the user's own."""
    answers, rubric, mine = (tmp_path / name for name in ("answers.jsonl", "rubric.yaml", "mine.py"))
    answers.write_text("{}", encoding="utf-8")
    rubric.write_bytes((_rubric.FOLDER / "quality.yaml").read_bytes())
    mine.write_text(REWARD, encoding="utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("w", encoding="utf-8")
    jury = f"[(rules:measure=exact,answers={answers}), (judge:model=m,rubric={rubric}), ({mine}:depth=2)]"
    step = rooms.parse("curation", f"score:reward=(ensemble:of={jury})")
    assert provenance.read_by([step]) == {str(file): provenance.digest(file) for file in (answers, mine, rubric)}
    select = rooms.parse("curation", f"select:quality=(model:model={tmp_path}/model),vectors=v")
    assert list(provenance.read_by(select)) == [f"{tmp_path}/model"]
    hub = rooms.parse("rewards", "model:model=org/name")
    assert provenance.read_by(hub) == provenance.read_by(None) == {}
