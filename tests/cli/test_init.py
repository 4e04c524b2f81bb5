"""The command line as a whole: light, and one sentence with exit status 2 for every mistake."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grainline import cli
from grainline.errors import RunError, TrainingError

HEAVY = "{'torch', 'transformers', 'peft', 'datasets', 'accelerate'}"


def run(*arguments: str) -> int:
    """Exit status of a command line, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["ls"],
        ["show", "objective", "dpo"],
        ["schema"],
        ["new", "objective", "x-y", "--dir", "DIR"],
        ["align", "--help"],
        ["align", "no.yaml"],
    ],
)
def test_what_needs_no_torch_imports_none_and_is_quick(arguments: list[str], tmp_path: Path) -> None:
    arguments = [str(tmp_path) if word == "DIR" else word for word in arguments]
    program = (
        "import sys, atexit, grainline.cli\n"
        f"atexit.register(lambda: print('HEAVY', sorted({HEAVY} & set(sys.modules)), file=sys.stderr))\n"
        f"grainline.cli.main({arguments!r})"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    took = time.perf_counter() - start
    assert done.returncode == (2 if "no.yaml" in arguments else 0), done.stderr
    assert done.stderr.strip().endswith("HEAVY []")
    assert took < 3, "well below a second on an idle machine"


@pytest.mark.parametrize("verb", cli.verbs())
def test_every_verb_shows_examples_before_its_options(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, "--help") == 0
    shown = capsys.readouterr().out
    assert f"grainline {verb}" in shown.split("Examples:")[1]
    assert shown.index("Examples:") < shown.index("Options:")
    assert callable(getattr(importlib.import_module(f"grainline.cli.{verb}"), verb))


def test_the_front_page_lists_every_verb_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    lines = shown[shown.index("Commands:") :].splitlines()[1:]
    assert [line.split()[0] for line in lines] == cli.verbs()
    assert not [line for line in lines if line.endswith("...")], "a first sentence that does not fit"


MISTAKES = [
    (["algn"], "No such command 'algn'. Did you mean 'align'?"),
    (["ls", "objectivs"], "no room 'objectivs'. Did you mean 'objectives'?"),
    (["show", "objective", "dop"], "no method 'dop' in objectives/. Did you mean 'dpo'?"),
    (["show", "preset", "dorra"], "no preset 'dorra'. Did you mean 'dora'?"),
    (["show", "objective"], "Missing argument"),
    (["show", "objective", "missing.py"], "no file 'missing.py'."),
    (["new", "objective", "2d-dpo"], "a module may not begin with a digit, so not '2d-dpo'. Spell it (two-d-dpo)"),
    (["new", "objective", "dpo"], "objectives/ has a method 'dpo' already."),
    (["new", "objective", "No Name"], "'No Name' cannot be a method's name."),
    (["new", "preset", "x"], "a preset is not a method."),
    (["align"], "Missing argument"),
    (["align", "no.yaml"], "no.yaml: no such file."),
    (["align", "model=m"], "data is missing."),
    (["align", "model=m", "data=d", "stepz=3"], "override stepz=3: no key 'stepz'. Did you mean 'steps'?"),
    (["align", "model=m", "data=d", "objective=dop"], "objective: no method 'dop'"),
    (["align", "model=m", "data=d", "optimizer.lr=fast"], "should be a valid number"),
    (["align", "model=m", "data=d", "bf16=true"], "bf16 is not understood here."),
    (["align", "model=m", "data=d", "--resme"], "No such option"),
    (["evaluate", "no-run"], "Missing option"),
    (["export", "no-run", "--to", "x", "--format", "gguf"], "no format 'gguf'."),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_exit_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""
    assert not list(tmp_path.iterdir()), "nothing was started"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (RunError("gone.", where="runs/x"), 2, "error: runs/x: gone.\n"),
        (TrainingError("the loss is NaN."), 1, "error: the loss is NaN.\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_each_kind_of_failure_has_its_exit_status(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", lambda: lambda arguments: fail())
    assert run("ls") == status
    assert capsys.readouterr().err == said


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", lambda: lambda arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["ls"])


def test_a_reader_who_has_seen_enough() -> None:
    program = f"{sys.executable} -c 'import grainline.cli; grainline.cli.main([\"schema\"])' | head -1"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("grainline 0.")


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    assert "Examples:" in "".join(capsys.readouterr())
