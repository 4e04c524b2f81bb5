"""A run from the recipe to the exported adapter, on a small world that can be learnt (``_toy.py``)."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from _toy import Toy, jsonl, pairs
from grainline import recipe as recipes
from grainline.errors import DataError, ModelError, RecipeError, RunError
from grainline.runs import Run, align

LOG2 = math.log(2)
TRL_NAMES = {
    "step", "loss", "logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected", "rewards/margins",
    "rewards/accuracies", "grad_norm", "learning_rate", "num_tokens", "seconds",
}  # fmt: skip


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in run.metrics if "loss" in line]


def without_clock(run: Run) -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in run.metrics]


def tensors(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def same_tensors(one: Run, other: Run) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------------------ the folder


def test_a_run_is_a_folder(toy_run: Run, toy: Toy) -> None:
    assert {path.name for path in toy_run.folder.iterdir()} == {
        "recipe.yaml", "provenance.json", "metrics.jsonl", "checkpoints", "adapter", "results.json", "samples.jsonl",
    }  # fmt: skip
    assert {path.name for path in toy_run.adapter.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "probe.json", "README.md",
    }  # fmt: skip
    assert [path.name for path in (toy_run.folder / "checkpoints").iterdir()] == ["step-000020"]
    assert repr(toy_run) == f"Run({str(toy_run.folder)!r})"
    assert "eld-out accuracy" in toy_run._repr_html_()
    assert toy_run.finished


def test_the_recipe_is_resolved(toy_run: Run, toy: Toy) -> None:
    text = (toy_run.folder / "recipe.yaml").read_text(encoding="utf-8")
    # a run may go on, and be used, elsewhere; and memory is read with max_tokens=auto only
    assert re.findall(r".*auto.*", text) == ["  device: auto", "memory: auto"]
    recipe = toy_run.recipe
    assert (recipe.layout, recipe.reference, recipe.steps) == ("tree", "cache", 20)
    assert recipe.model.dtype == "float32"
    assert recipes.dump(recipe) == text


def test_steps_are_resolved_from_epochs(toy: Toy, tmp_path: Path) -> None:
    run = align(**toy.choices(tmp_path / "run", steps=None, epochs=0.5, batch_size=10))
    assert run.recipe.steps == len(losses(run)) == 2


def test_provenance(toy_run: Run, toy: Toy) -> None:
    facts = json.loads((toy_run.folder / "provenance.json").read_text(encoding="utf-8"))
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["versions"].keys() >= {"grainline", "transformers", "peft", "accelerate", "datasets", "safetensors"}
    assert facts["machine"]["cores"] == os.cpu_count()
    assert (facts["seed"], facts["run"]["processes"], facts["model"]["dtype"]) == (0, 1, "torch.float32")
    assert toy.model in facts["model"]["source"]
    assert len(facts["model"]["sha256"]) == len(facts["data"]["train"][0]["digest"]) == 64
    (train,), held_out = facts["data"]["train"], facts["data"]["evaluation"]["test"]
    assert (train["path"], train["rows"], train["left_out"]) == ("pairs.jsonl", 40, [])
    assert (held_out["path"], held_out["rows"]) == ("test.jsonl", 16)
    assert facts["data"]["counts"]["rows"] == 40
    assert facts["run"]["roles"] == ["down", "up"]
    assert facts["run"]["trainable"] == sum(tensor.numel() for tensor in tensors(toy_run).values())
    assert facts["run"]["layout_why"].startswith("tree: differs from the plain model by ")


def test_metrics_have_trls_names(toy_run: Run) -> None:
    steps = [line for line in toy_run.metrics if "loss" in line]
    looks = [line for line in toy_run.metrics if "eval_test_rows" in line]
    assert [line["step"] for line in steps] == list(range(1, 21))
    assert all(set(line) >= TRL_NAMES for line in steps)
    assert [line["step"] for line in looks] == [0, 5, 10, 15, 20]
    kinds = ("rewards/accuracies", "rewards/accuracies_low", "rewards/margins", "likelihood/accuracies", "logps/chosen")
    assert all(set(line) >= {f"eval_test_{kind}" for kind in kinds} for line in looks)
    assert all(line["rewards/margins"] == pytest.approx(line["rewards/chosen"] - line["rewards/rejected"], abs=1e-6)
               for line in steps)  # fmt: skip


def test_it_learns(toy_run: Run) -> None:
    looks = [line for line in toy_run.metrics if "eval_test_rows" in line]
    assert losses(toy_run)[0] == pytest.approx(LOG2, abs=1e-5)
    assert losses(toy_run)[-1] < 0.2
    assert looks[-1]["eval_test_rewards/accuracies"] > 0.9
    assert looks[-1]["eval_test_rewards/accuracies_low"] > 0.5
    before, *others = (line["eval_test_rewards/margins"] for line in looks)
    assert before == 0
    assert others[-1] > others[0] > 0
    assert toy_run.before() == looks[0]
    assert looks[0]["eval_test_likelihood/accuracies"] != looks[-1]["eval_test_likelihood/accuracies"]


def test_results_are_those_of_the_adapter(toy_run: Run) -> None:
    found = toy_run.summary()
    assert found["step"] == 20
    assert 10**7 < found.pop("peak_memory") < 10**11
    assert found == {k: v for line in toy_run.metrics if line["step"] == 20 for k, v in line.items()}


@pytest.mark.parametrize("init", ["default", "pissa"])
def test_geometry_is_that_of_the_adapter_that_was_trained(init: str, toy: Toy, tmp_path: Path) -> None:
    """The four numbers of the last step from the files of adapter and base alone, and a chart of them."""
    look = {"geometry": True, "every": 1}
    run = align(**toy.choices(tmp_path / "run", adapter=f"lora:rank=4,init={init}", evaluation=look))
    logged = [line for line in run.metrics if "geometry_change" in line]
    assert [line["step"] for line in logged] == [1, 2, 3]
    config, lora = json.loads((run.adapter / "adapter_config.json").read_text()), tensors(run)
    scale, base = config["lora_alpha"] / config["r"], load_file(Path(toy.model) / "model.safetensors")
    names = [name.removesuffix(".lora_A.weight") for name in lora if name.endswith(".lora_A.weight")]
    assert len(names) == 14
    expected: dict[str, dict[str, float]] = {}
    for name in names:
        before = base[f"{name.removeprefix('base_model.model.')}.weight"].double()
        change = scale * (lora[f"{name}.lora_B.weight"].double() @ lora[f"{name}.lora_A.weight"].double())
        values, energies = zip(*((torch.linalg.svdvals(w), energy(w)) for w in (before, before + change)), strict=True)
        expected[name] = {
            "change": float(change.norm() / before.norm()),
            "angle": float(torch.cosine_similarity(before, before + change).acos().square().mean().sqrt()),
            "spectrum": float((values[1] - values[0]).norm() / values[0].norm()),
            "energy": energies[1] / energies[0] - 1,
        }
    order = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    names.sort(key=lambda name: (name.split(".")[4], order.index(name.rpartition(".")[2])))
    looked = [names[round(i * 13 / 11)] for i in range(12)]  # of 14 matrices 12, evenly
    for key in ("change", "angle", "spectrum", "energy"):
        mean = sum(expected[name][key] for name in looked) / 12
        assert logged[-1][f"geometry_{key}"] == pytest.approx(mean, rel=1e-3, abs=1e-6), key
    assert "What became of the weights" in str(run.report())


def energy(weight: torch.Tensor) -> float:
    """Of the rows' directions, pair by pair."""
    unit = torch.nn.functional.normalize(weight, dim=1)
    return 2 * sum(float((unit[i] - unit[j]).norm() ** -1) for i in range(len(unit)) for j in range(i))


def test_samples_show_policy_beside_reference(toy_run: Run) -> None:
    rows = [json.loads(line) for line in (toy_run.folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == ["test:1", "test:2"]
    assert all(set(row) == {"id", "prompt", "policy", "reference"} for row in rows)
    assert any(row["policy"] != row["reference"] for row in rows)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run"):
        Run(tmp_path)


def test_a_bad_row_stops_before_anything_is_written(toy: Toy, tmp_path: Path) -> None:
    rows = [*pairs(4, prompts=4, seed=3), {"prompt": "x", "chosen": "same", "rejected": "same"}, {"chosen": "lonely"}]
    data = jsonl(tmp_path / "some.jsonl", rows)
    with pytest.raises(DataError, match=r"2 of 6 rows cannot be used: some\.jsonl:5.*skip_bad_rows"):
        align(**toy.choices(tmp_path / "run", data=data))
    assert not (tmp_path / "run").exists()
    run = align(**toy.choices(tmp_path / "run", data=data, skip_bad_rows=True, steps=1, batch_size=4))
    facts = json.loads((run.folder / "provenance.json").read_text(encoding="utf-8"))["data"]
    assert [reason.partition(":")[0] for reason in facts["train"][0]["left_out"]] == ["some.jsonl"] * 2
    assert (facts["train"][0]["rows"], facts["counts"]["left_out"]) == (4, 2)


# ------------------------------------------------------------------------------- choices that must not change a number


@pytest.fixture(scope="module")
def plain(toy_world: Toy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three steps in which nothing special is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAINLINE_CACHE", str(toy_world.root / "cache"))
        return align(**toy_world.choices(tmp_path_factory.mktemp("plain") / "run"))


@pytest.mark.parametrize(
    "choice",
    [{"reference": "off"}, {"reference": "snapshot"}, {"reference": "cache"}, {"layout": "packed"},
     {"layout": "padded"}, {"layout": "padded", "reference": "off"}, {"max_tokens": 40}],
    ids=str,
)  # fmt: skip
def test_it_learns_the_same(choice: dict[str, Any], plain: Run, toy: Toy, tmp_path: Path) -> None:
    run = align(**toy.choices(tmp_path / "run", **choice))
    assert losses(run) == pytest.approx(losses(plain), abs=1e-5)
    assert {key: getattr(run.recipe, key) for key in choice} == choice
    for name, tensor in tensors(run).items():
        torch.testing.assert_close(tensor, tensors(plain)[name], atol=2e-4, rtol=1e-3)


def test_the_same_seed_is_the_same_run(plain: Run, toy: Toy, tmp_path: Path) -> None:
    again = align(**toy.choices(tmp_path / "again"))
    assert without_clock(again) == without_clock(plain)
    assert same_tensors(again, plain)


def test_the_cache_is_filled_once_and_verified(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))
    verified = []
    for name in ("first", "second"):
        run = align(**toy.choices(tmp_path / name, steps=1))
        facts = json.loads((run.folder / "provenance.json").read_text(encoding="utf-8"))
        verified.append(facts["run"]["reference_verified_nats"])
    assert verified[0] is None
    assert verified[1] < 1e-4
    assert len(list((tmp_path / "cache" / "reference").glob("*/*.safetensors"))) == 1


# ------------------------------------------------------------------------------------------------ adapters and starts


@pytest.mark.parametrize("init", ["pissa", "olora", "orthogonal"])
def test_every_start_is_the_base_and_is_shipped_whole(init: str, toy: Toy, tmp_path: Path) -> None:
    held_out = {"data": {"test": toy.held_out}, "samples": 0}
    run = align(**toy.choices(tmp_path / "run", adapter=f"lora:rank=4,init={init}", evaluation=held_out))
    assert losses(run)[0] == pytest.approx(LOG2, abs=1e-5)
    live = run.summary()
    again = run.evaluate({"test": toy.held_out}, progress=False)["test"]  # on the untouched base
    for name in ("logps/chosen", "logps/rejected", "rewards/margins"):
        assert again[name] == pytest.approx(live[f"eval_test_{name}"], abs=1e-4), name
    rank = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    assert rank == (8 if init in ("pissa", "olora") else 4)


@pytest.mark.parametrize("reference", ["cache", "snapshot"])
def test_all_weights(reference: str, toy: Toy, tmp_path: Path) -> None:
    choices: dict[str, Any] = {"adapter": "none", "optimizer": "adamw:lr=1e-3", "reference": reference}
    run = align(**toy.choices(tmp_path / "run", evaluation={"data": {"test": toy.held_out}}, **choices))
    assert losses(run)[0] == pytest.approx(LOG2, abs=1e-5)
    assert losses(run)[-1] < 0.65
    live, again = run.summary(), run.evaluate({"test": toy.held_out}, progress=False)["test"]
    assert again["rewards/margins"] == pytest.approx(live["eval_test_rewards/margins"], abs=1e-5)
    assert again["rewards/margins"] > 0.05
    model = transformers.AutoModelForCausalLM.from_pretrained(run.adapter)
    base = transformers.AutoModelForCausalLM.from_pretrained(toy.model)
    assert not torch.equal(model.lm_head.weight, base.lm_head.weight)
    (row,) = (json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()[:1])
    assert "reference" not in row


@pytest.mark.parametrize("choices", [{"adapter": "none"}, {"adapter": "lora:init=pissa"}], ids=str)
def test_off_is_refused_where_it_is_not_the_base(choices: dict[str, Any], toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"is not the reference.*Choose cache or snapshot\."):
        align(**toy.choices(tmp_path / "run", reference="off", **choices))


@pytest.fixture(scope="module")
def dropping(toy_world: Toy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose adapter has dropout, as most adapters that people have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAINLINE_CACHE", str(toy_world.root / "cache"))
        out = tmp_path_factory.mktemp("dropping") / "run"
        return align(**toy_world.choices(out, adapter="lora:rank=2,dropout=0.2"))


@pytest.mark.parametrize("reference", ["cache", "snapshot"])
def test_going_on_from_an_adapter(reference: str, dropping: Run, toy: Toy, tmp_path: Path) -> None:
    before = tensors(dropping)
    run = align(**toy.choices(
        tmp_path / "run", model={"name": toy.model, "adapter": str(dropping.adapter)}, adapter="lora",
        reference=reference,
        evaluation={"data": {"test": toy.held_out}, "every": 1},
    ))  # fmt: skip
    assert losses(run)[0] == pytest.approx(LOG2, abs=1e-5)  # the reference is that adapter, not the base
    after = tensors(run)
    assert after.keys() == before.keys()
    assert any(not torch.equal(after[name], before[name]) for name in after)
    assert all(torch.equal(tensors(dropping)[name], before[name]) for name in before)
    live, again = run.summary(), run.evaluate({"test": toy.held_out}, progress=False)["test"]
    assert again["rewards/margins"] == pytest.approx(live["eval_test_rewards/margins"], abs=1e-5)
    samples = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()]
    assert samples
    assert not any("reference" in row for row in samples)  # with the adapter off the model is the base, not that


def test_going_on_needs_an_adapter_that_fits(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds a whole model\. Give it as the model"):
        align(**toy.choices(tmp_path / "run", model={"name": toy.model, "adapter": toy.model}, adapter="lora"))
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        align(**toy.choices(tmp_path / "run", model={"name": toy.model, "adapter": str(tmp_path)}, adapter="lora"))
    with pytest.raises(RecipeError, match="adapter=lora:rank=4 would do nothing"):
        align(**toy.choices(tmp_path / "run", model={"name": toy.model, "adapter": str(tmp_path)}))


# -------------------------------------------------------------------------------------------------------- objectives


def test_sums_add_the_means_of_their_terms(plain: Run, toy: Toy, tmp_path: Path) -> None:
    sft = align(**toy.choices(tmp_path / "sft", objective="sft"))
    both = align(**toy.choices(tmp_path / "both", objective="dpo + 0.5*sft"))
    assert losses(both)[0] == pytest.approx(losses(plain)[0] + 0.5 * losses(sft)[0], abs=1e-5)
    assert both.recipe.objective == recipes.load({"model": "m", "data": "d", "objective": "dpo + 0.5*sft"}).objective
    assert losses(sft)[-1] < losses(sft)[0]
    assert "logps/answer" in sft.metrics[-1]
    assert not {"rewards/margins", "logps/chosen"} & sft.metrics[-1].keys()


def test_sft_learns_the_desirable_rows_alone(toy: Toy, tmp_path: Path) -> None:
    held_out = {"data": {"labelled": toy.labelled}, "samples": 0}
    with pytest.warns(UserWarning, match="'labelled' is also trained on"):
        run = align(**toy.choices(tmp_path / "run", data=toy.labelled, objective="sft", steps=20, evaluation=held_out))
    assert losses(run)[-1] < losses(run)[0] - 1
    rows = [json.loads(line) for line in Path(toy.labelled).read_text(encoding="utf-8").splitlines()]
    run.evaluate({"labelled": toy.labelled}, progress=False)
    found = (run.folder / "evaluation" / "labelled" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(found) == sum(row["label"] for row in rows)


def test_an_objective_for_pairs_refuses_labelled_rows(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"needs pairs.*labelled\.jsonl:1 is a labelled answer"):
        align(**toy.choices(tmp_path / "run", data=toy.labelled))


def test_a_reference_that_nobody_reads_is_refused(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="sft uses no reference"):
        align(**toy.choices(tmp_path / "run", objective="sft", reference="snapshot"))


# ------------------------------------------------------------------------------------------------ stopping, going on


class Halt(Exception):
    pass


class At(transformers.TrainerCallback):
    """Does something at the end of a step."""

    def __init__(self, step: int, what: Any) -> None:
        self.step, self.what = step, what

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        return self.what(control) if state.global_step == self.step else None


def raise_(control: Any) -> None:
    raise Halt


def ask(control: Any) -> Any:
    control.should_training_stop = True
    return control


STOPS = {"a callback raises": raise_, "a callback asks": ask, "SIGTERM": lambda _: os.kill(os.getpid(), signal.SIGTERM)}


@pytest.fixture(scope="module")
def hard(toy_world: Toy) -> dict[str, Any]:
    """Choices under which everything that can be lost would be: dropout, a schedule, two epochs, evaluations."""
    return {
        "adapter": "lora:rank=4,dropout=0.1",
        "schedule": "cosine",
        "steps": 8,
        "batch_size": 13,
        "evaluation": {"data": {"test": toy_world.held_out}, "every": 3, "samples": 0},
        "checkpoints": {"every": 2},
    }


@pytest.fixture(scope="module")
def uninterrupted(hard: dict[str, Any], toy_world: Toy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAINLINE_CACHE", str(toy_world.root / "cache"))
        return align(**toy_world.choices(tmp_path_factory.mktemp("whole") / "run", **hard))


@pytest.mark.parametrize("how", STOPS)
def test_resumed_is_uninterrupted(how: str, hard: dict[str, Any], uninterrupted: Run, toy: Toy, tmp_path: Path) -> None:
    choices = toy.choices(tmp_path / "run", **hard)
    try:
        stopped = align(**choices, callbacks=[At(5, STOPS[how])])
        assert not stopped.finished
        assert not stopped.adapter.exists()
        with pytest.raises(RunError, match="not finished"):
            stopped.summary()
    except Halt:
        assert how == "a callback raises"
    assert len(losses(Run(tmp_path / "run"))) == 5
    run = align(**choices, resume=True)
    assert without_clock(run) == without_clock(uninterrupted)
    assert same_tensors(run, uninterrupted)
    assert (run.adapter / "probe.json").read_bytes() == (uninterrupted.adapter / "probe.json").read_bytes()


def test_a_run_is_not_overwritten(uninterrupted: Run, hard: dict[str, Any], toy: Toy) -> None:
    before = without_clock(uninterrupted)
    with pytest.raises(RunError, match=r"holds a run already\. Resume it"):
        align(**toy.choices(uninterrupted.folder, **hard))
    assert without_clock(uninterrupted) == before


def test_another_recipe_cannot_resume(uninterrupted: Run, hard: dict[str, Any], toy: Toy) -> None:
    other = hard | {"objective": "dpo:beta=0.3", "seed": 5}
    with pytest.raises(RunError, match=r"another recipe \(objective, seed differ\)"):
        align(**toy.choices(uninterrupted.folder, **other), resume=True)


def test_nothing_to_resume(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing to resume"):
        align(**toy.choices(tmp_path / "run"), resume=True)


def test_the_best_adapter_is_kept_and_patience_ends_the_run(toy: Toy, tmp_path: Path) -> None:
    evaluation = {
        "data": {"test": toy.held_out},
        "every": 2,
        "best": "eval_test_rewards/accuracies",
        "patience": 2,
        "samples": 0,
    }
    choices = toy.choices(tmp_path / "run", steps=60, schedule="constant", evaluation=evaluation)
    run = align(**choices, checkpoints={"every": 1, "keep": 1})
    looks = {line["step"]: line["eval_test_rewards/accuracies"] for line in run.metrics if "eval_test_rows" in line}
    best = max(looks, key=lambda step: (looks[step], -step))
    assert max(looks) == best + 4 < 60
    assert run.summary()["step"] == best
    checkpoint = load_file(run.folder / "checkpoints" / f"step-{best:06d}" / "state.safetensors")
    kept = {k.removeprefix("model.").replace(".default", ""): v for k, v in checkpoint.items() if "lora_" in k}
    found = tensors(run)
    assert len(found) > 0
    for name, tensor in found.items():
        assert torch.equal(tensor, next(v for k, v in kept.items() if k.endswith(name))), name
    assert len(run.metrics) == len(align(**choices, checkpoints={"every": 1, "keep": 1}, resume=True).metrics)


# ------------------------------------------------------------------------------------------ watching, measuring, giving


def test_a_best_that_is_no_metric_is_found_before_training(toy: Toy, tmp_path: Path) -> None:
    evaluation = {"data": {"test": toy.held_out}, "best": "eval_test_rewards/acuracies"}
    with pytest.raises(RecipeError, match="Did you mean 'eval_test_rewards/accuracies'"):
        align(**toy.choices(tmp_path / "run", evaluation=evaluation))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


class Recorder(transformers.TrainerCallback):
    """A callback as people have them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.logs: list[dict[str, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert kwargs["model"] is not None
        assert kwargs["optimizer"].param_groups
        assert (state.max_steps, state.is_world_process_zero) == (3, True)
        self.events.append(("begin", state.global_step))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append(("step", state.global_step))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append(logs)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        assert "eval_test_rewards/accuracies" in metrics
        self.events.append(("evaluate", state.global_step))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append(("save", state.global_step))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append(("end", state.global_step))


def test_callbacks_of_transformers(toy: Toy, tmp_path: Path) -> None:
    recorder = Recorder()
    run = align(
        **toy.choices(tmp_path / "run", evaluation={"data": {"test": toy.held_out}, "every": 2, "samples": 0}),
        callbacks=[recorder],
    )
    assert recorder.events == [
        ("begin", 0), ("step", 0), ("step", 1), ("evaluate", 2), ("step", 2), ("evaluate", 3), ("save", 3), ("end", 3),
    ]  # fmt: skip
    assert [log["loss"] for log in recorder.logs if "loss" in log] == losses(run)


def test_progress_is_said_on_standard_error(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    align(**toy.choices(tmp_path / "run", progress=True))
    out, err = capsys.readouterr()
    assert out == ""
    for said in ("data: pairs.jsonl, 40 rows", "model: ", "layout: tree (", "3 steps of 8", "training 3/3  loss 0."):
        assert said in err
    align(**toy.choices(tmp_path / "quiet"))
    assert "training" not in capsys.readouterr().err


def test_tensorboard(toy: Toy, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = align(**toy.choices(tmp_path / "run", trackers=["tensorboard"]))
    (folder,) = {file.parent for file in run.folder.rglob("events.out.tfevents*") if file.parent.name == "run"}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [scalar.value for scalar in events.Scalars("loss")] == pytest.approx(losses(run), rel=1e-6)


@pytest.mark.parametrize(("name", "said"), [("tensorbord", "Did you mean 'tensorboard'"), ("aim", "not installed")])
def test_trackers_that_would_not_track(name: str, said: str, toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"trackers.*{said}"):
        align(**toy.choices(tmp_path / "run", trackers=[name]))
    assert not (tmp_path / "run").exists()


def test_by_prompt_keeps_the_rows_of_a_prompt_together(plain: Run, toy: Toy, tmp_path: Path) -> None:
    run = align(**toy.choices(tmp_path / "run", sampler="by_prompt"))
    assert run.metrics[-1]["num_tokens"] < plain.metrics[-1]["num_tokens"]  # a shared prompt is read once
    assert losses(run)[1:] != losses(plain)[1:]


def test_evaluate_measures_the_saved_adapter(toy_run: Run, toy: Toy) -> None:
    found = toy_run.evaluate({"again": toy.held_out, "train": toy.pairs}, progress=False)
    live = toy_run.summary()
    assert set(found) == {"again", "train"}
    for name in ("rewards/accuracies", "rewards/margins", "logps/chosen", "likelihood/accuracies_low"):
        assert found["again"][name] == pytest.approx(live[f"eval_test_{name}"], abs=1e-5), name
    for name in found:
        folder = toy_run.folder / "evaluation" / name
        stored = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
        shutil.rmtree(folder)
        assert {key: value for key, value in stored["metrics"].items() if value is not None} == found[name]
        assert len(rows) == stored["data"]["rows"] == found[name]["rows"]
    margins = [row["rewards/margins"] for row in rows]
    assert found["train"]["rewards/margins"] == pytest.approx(sum(margins) / len(margins))


def test_merged_is_the_adapted_model(toy_run: Run, toy: Toy, tmp_path: Path) -> None:
    import peft

    found = toy_run.export(tmp_path / "merged", format="merged")
    assert found["max_error_nats"] < 1e-5
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert type(merged) is transformers.LlamaForCausalLM
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    ids = torch.tensor([words("tell me of the sea")["input_ids"]])
    base = transformers.AutoModelForCausalLM.from_pretrained(toy.model)
    adapted = peft.PeftModel.from_pretrained(base, str(toy_run.adapter))
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, atol=1e-5, rtol=0)
        assert (merged(ids).logits - adapted.get_base_model()(ids).logits).abs().max() < 1e-5
        with adapted.disable_adapter():
            assert (merged(ids).logits - adapted(ids).logits).abs().max() > 0.1


def test_one_data_set_needs_no_name(toy_run: Run, toy: Toy) -> None:
    assert set(toy_run.evaluate(toy.held_out, progress=False)) == {"test"}
    shutil.rmtree(toy_run.folder / "evaluation" / "test")
    assert set(toy_run.evaluate({"my/set": toy.held_out}, progress=False)) == {"my/set"}
    shutil.rmtree(toy_run.folder / "evaluation" / "my-set")


def test_unknown_format(toy_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no format 'peff'.*Did you mean 'peft'"):
        toy_run.export(tmp_path / "x", format="peff")


# ------------------------------------------------------------------------------------------------- rows in memory


def test_rows_in_memory_are_kept_with_the_run(toy: Toy, tmp_path: Path) -> None:
    import datasets

    rows = [json.loads(line) for line in Path(toy.pairs).read_text(encoding="utf-8").splitlines()]
    wanted = align(**toy.choices(tmp_path / "file"))
    uniform = [
        row for row in rows if set(row) == {"prompt", "chosen", "rejected"} and not isinstance(row["prompt"], str)
    ]
    for name, data in {"list": rows, "dataset": datasets.Dataset.from_list(uniform)}.items():
        run = align(**toy.choices(tmp_path / name, data=data, evaluation={"data": {"again": data}}))
        assert (run.folder / "data" / "train.jsonl").is_file()
        assert run.recipe.data[0].path == str(run.folder / "data" / "train.jsonl")
        assert "eval_again_rewards/accuracies" in run.summary()
        if name == "list":
            assert [m["loss"] for m in run.metrics if "loss" in m] == [m["loss"] for m in wanted.metrics]


def test_what_rows_in_memory_cannot_be(toy: Toy, tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"prompt": "a?", "chosen": "b", "rejected": "c"}])
    splits = datasets.DatasetDict(train=rows, test=rows)
    with pytest.raises(RecipeError, match=r"data: a DatasetDict holds several splits \(train, test\)\. Give one"):
        align(**toy.choices(tmp_path / "run", data=splits))
    with pytest.raises(RecipeError, match=r"evaluation cannot be text .*Write evaluation: \{data: PATH\}"):
        align(**toy.choices(tmp_path / "run", evaluation="test.jsonl"))
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------- what would be silent harm


def test_imitation_is_judged_on_pairs(toy: Toy, tmp_path: Path) -> None:
    run = align(**toy.choices(tmp_path / "run", objective="sft", evaluation={"data": {"test": toy.held_out}}))
    assert 0 <= run.summary()["eval_test_likelihood/accuracies"] <= 1


def test_all_weights_are_not_trained_in_half_precision(toy: Toy, tmp_path: Path) -> None:
    half = {"name": toy.model, "dtype": "bfloat16"}
    with pytest.raises(RecipeError, match="would be trained in bfloat16, where small updates round away"):
        align(**toy.choices(tmp_path / "run", model=half, adapter="none"))


def test_all_weights_in_padded_rows_are_evaluated(toy: Toy, tmp_path: Path) -> None:
    choices = toy.choices(tmp_path / "run", adapter="none", optimizer="adamw:lr=1e-3", layout="padded")
    run = align(**choices, evaluation={"data": {"test": toy.held_out}})
    again = run.evaluate({"test": toy.held_out}, progress=False)["test"]
    assert again["rewards/margins"] == pytest.approx(run.summary()["eval_test_rewards/margins"], abs=1e-5)


def test_an_export_replaces_nothing_but_an_export(toy_run: Run, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "precious").touch()
    for place in (tmp_path / "models", toy_run.folder, toy_run.folder.parent):
        with pytest.raises(RunError):
            toy_run.export(place)
    assert (tmp_path / "models" / "precious").is_file()
    toy_run.export(tmp_path / "adapter")
    toy_run.export(tmp_path / "adapter")


def test_accelerates_own_configuration_changes_no_number(toy: Toy, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(RunError, match=r"Set model\.dtype and batch_size in the recipe instead"):
        align(**toy.choices(tmp_path / "run"))
