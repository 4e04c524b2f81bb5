"""Adapters out and in: written whole or not at all, read strictly, and checked against what the model said.

::

    adapter_config.json, adapter_model.safetensors    PEFT's two files: any of its readers can load them
    probe.json                                        tokens, and the adapted model's log-probs of them
    README.md                                         a model card

PEFT skips tensors whose names do not fit; here a missing or unexpected one is an error, and a loaded adapter can be
made to repeat the probe. ``none`` writes a whole model instead of PEFT's files. Starts that take their low-rank part
out of the base (PiSSA, OLoRA) are written as plain LoRA of rank 2 r, which fits the untouched base:

.. math:: W_{res} + s B A = W + s\\,[B, -B_0]\\,[A; A_0]
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grainline import as_lora, atomic, models, probe
from grainline.adapter_files import CONFIG, WEIGHTS, read_config, read_tensors
from grainline.errors import ModelError, RunError, nearest
from grainline.model_card import model_card, told

if TYPE_CHECKING:
    import torch
    from torch import nn

    from grainline.recipe import ModelChoice

FORMATS = ("lora", "merged", "peft")


# ---------------------------------------------------------------------------------------------------- writing


def write_initial(model: Any, folder: Path) -> None:
    """Keep a fresh adapter as it starts. Needed before training where the start changes the base."""
    with atomic.folder(folder) as temporary:
        model.save_pretrained(temporary, save_embedding_layers=False)


def write_adapter(
    model: Any,
    folder: Path,
    *,
    tokenizer: Any = None,
    ids: Sequence[int] | None = None,
    initial: Path | None = None,
    methods: Sequence[str] = (),
) -> probe.Probe:
    """Write the adapter of ``model`` (or, without one, the whole model) to ``folder``, with a probe and a card.

    Args:
        model: A PeftModel whose active adapter is written, or a plain model.
        folder: Replaced if it exists.
        tokenizer: Stored with a whole model; gives the probe's text where ``ids`` does not.
        ids: Tokens of the probe.
        initial: What :func:`write_initial` wrote, for adapters whose start changed the base.
        methods: Names for the card's tags, e.g. ("lora", "dpo").

    Raises:
        ModelError: the start changed the base and ``initial`` is missing.
    """
    said = probe.measure(model, _ids(tokenizer, ids))
    with atomic.folder(folder) as temporary:
        if not _is_peft(model):
            _save_model(model, temporary, tokenizer)
        else:
            _save_peft(model, temporary, folder, initial)
        probe.write(said, temporary)
        (temporary / "README.md").write_text(model_card(model, methods=methods), encoding="utf-8")
    return said


def merged(model: Any, dtype: torch.dtype | None = None) -> Any:
    """A copy of ``model`` with its adapter added to the weights: added in float32, then rounded once to ``dtype``.

    ``dtype`` defaults to the base's own. ``model`` itself is left alone.

    Raises:
        ModelError: no weights stand for it, the base is quantised (the sum would be rounded to a few bits), or it is no
            PeftModel.
    """
    import torch

    if not _is_peft(model):
        raise ModelError("there is no adapter to merge.", where="merge", instead="The model is whole as it is.")
    as_lora.check_mergeable(model)
    target = dtype or next(tensor for _, tensor in models.base_parameters(model)).dtype
    with as_lora.merging():
        return copy.deepcopy(model).to(torch.float32).merge_and_unload(safe_merge=True).to(target)


def write_merged(
    model: Any,
    folder: Path,
    *,
    tokenizer: Any,
    ids: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    methods: Sequence[str] = (),
) -> float:
    """Merge, write a plain Hugging Face folder, read it again; returns its largest error in nats on the probe.

    Raises:
        ModelError: as :func:`merged`.
    """
    stored = probe.measure(model, _ids(tokenizer, ids))
    plain = merged(model, dtype)
    with atomic.folder(folder) as temporary:
        _save_model(plain, temporary, tokenizer)
        again = _read_model(temporary, plain)
        error = probe.distance(again, stored)
        probe.write(probe.measure(again, stored.ids), temporary)
        facts = {"max_error_nats": error, "dtype": probe.dtype_name(plain)}
        (temporary / "README.md").write_text(
            model_card(model, methods=methods, merged=True, facts=facts), encoding="utf-8"
        )
        _write_facts(temporary, "merged", model, facts | {"probe_tokens": len(stored.ids)})
    return error


def write_lora(
    model: Any,
    folder: Path,
    *,
    tokenizer: Any = None,
    ids: Sequence[int] | None = None,
    rank: int | None = None,
    methods: Sequence[str] = (),
) -> dict[str, Any]:
    """Write a plain LoRA in the place of the adapter, read it again, and say how far it is from the adapter.

    Raises:
        ModelError: as :func:`grainline.as_lora.as_lora`.
    """
    stored = probe.measure(model, _ids(tokenizer, ids))
    made = as_lora.as_lora(model, rank)
    with atomic.folder(folder) as temporary:
        made.save(temporary)
        again = load_adapter(copy.deepcopy(model).unload(), temporary, check=False)
        facts = made.facts | {"max_error_nats": probe.distance(again, stored)}
        probe.write(probe.measure(again, stored.ids), temporary)
        (temporary / "README.md").write_text(model_card(model, methods=methods, facts=facts), encoding="utf-8")
        return _write_facts(temporary, "lora", model, facts | {"dtype": probe.dtype_name(model)})


# ---------------------------------------------------------------------------------------------------- reading


def load_adapter(
    model: Any, folder: Path, *, name: str = "default", trainable: bool = False, check: bool = True
) -> Any:
    """Attach the adapter in ``folder`` to ``model``; every tensor of both must find its partner.

    A ``PeftModel`` gains a further adapter called ``name`` and switches to it. A folder that holds a whole model gives
    a new model of the same class.

    Raises:
        ModelError: no adapter there, missing or unexpected tensors, other shapes, or (``check``) another probe.
    """
    import peft

    if not (folder / CONFIG).is_file():
        if (folder / "config.json").is_file():
            again = _read_model(folder, model)
            if check and probe.is_in(folder):
                probe.check(again, folder)
            return again.requires_grad_(trainable)
        raise ModelError(f"no {CONFIG}.", where=str(folder), instead="Give the folder of a saved adapter.")
    tensors, config = read_tensors(folder), read_config(folder)
    config.inference_mode = not trainable
    try:
        if _is_peft(model):
            model.add_adapter(name, config)
        else:
            model = peft.get_peft_model(model, config, adapter_name=name)
    except ValueError as error:
        raise ModelError(f"the adapter does not fit this model: {error}", where=str(folder)) from error
    model.set_adapter(name, inference_mode=not trainable)
    own = peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    _same_tensors(own, tensors, folder)
    peft.set_peft_model_state_dict(model, tensors, adapter_name=name)
    model.train(trainable)
    if not trainable:
        model.requires_grad_(False)  # a learnt prompt comes back free
    if check and probe.is_in(folder):
        probe.check(model, folder)
    return model


def _same_tensors(own: Mapping[str, Any], saved: Mapping[str, Any], folder: Path) -> None:
    where = str(folder / WEIGHTS)
    for what, names in (("missing", own.keys() - saved.keys()), ("unexpected", saved.keys() - own.keys())):
        if names:
            raise ModelError(
                f"{len(names)} {what} tensors, e.g. {min(names)}.", where=where, instead="Another base model?"
            )
    for name, tensor in own.items():
        if tensor.shape != saved[name].shape:
            shapes = f"{tuple(saved[name].shape)} instead of {tuple(tensor.shape)}"
            raise ModelError(f"{name} has shape {shapes}.", where=where, instead="Another base model?")


# -------------------------------------------------------------------------------------------- a run's export


def export(
    source: str | Path,
    to: str | Path,
    format: str = "peft",
    *,
    base: ModelChoice | models.Choice | str | None = None,
    methods: Sequence[str] = (),
    rank: int | None = None,
) -> dict[str, Any]:
    """A run's (or any saved) adapter -> a folder that others can load, checked; returns what ``export.json`` says.

    ``peft`` is the adapter itself, tried on its base; ``lora`` a plain LoRA of ``rank`` in its place (see
    :mod:`grainline.as_lora`); ``merged`` a whole model. ``base`` is the model to attach to: by default the one of the
    run's recipe or, without a run, the one PEFT's configuration names.

    Raises:
        RunError: no adapter in ``source``. ModelError: see :func:`load_adapter`. The choice of ``format`` is checked.
    """
    if format not in FORMATS:
        raise ModelError(f"no format {format!r}.", where="export", instead=nearest(format, FORMATS))
    if rank is not None and format != "lora":
        raise ModelError(f"format {format} has no rank.", where="export", instead="Choose format lora.")
    source, to = Path(source), Path(to)
    folder = source / "adapter" if (source / "adapter").is_dir() else source
    if not (folder / CONFIG).is_file() and not (folder / "config.json").is_file():
        raise RunError("no adapter there.", where=str(source), instead="Give a finished run, or an adapter's folder.")
    _check_target(to, source)
    choice = _base_choice(source, folder, base)
    loaded = models.load(choice)
    adapted = load_adapter(loaded.model, folder)
    ids = probe.read(folder).ids if probe.is_in(folder) else None
    if format == "merged" and _is_peft(adapted):
        write_merged(adapted, to, tokenizer=loaded.tokenizer, ids=ids, methods=methods)
        return json.loads((to / "export.json").read_text(encoding="utf-8"))
    if format == "lora" and _is_peft(adapted):
        return write_lora(adapted, to, tokenizer=loaded.tokenizer, ids=ids, rank=rank, methods=methods)
    with atomic.folder(to) as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)
        error = probe.check(adapted, folder) if ids else None
        facts = {"max_error_nats": error, "dtype": probe.dtype_name(adapted)}
        readme = temporary / "README.md"  # of a finished run: it says more than is known here
        said = readme.read_text(encoding="utf-8") if readme.is_file() else model_card(adapted, methods=methods)
        readme.write_text(said.rstrip("\n") + "\n\n" + told(facts), encoding="utf-8")
        return _write_facts(temporary, "peft" if _is_peft(adapted) else "merged", adapted, facts)


def _check_target(to: Path, source: Path) -> None:
    """An export replaces an earlier export, and nothing else."""
    ours = (to / "export.json").is_file()
    if to.exists() and not ours and not (to.is_dir() and not any(to.iterdir())):
        raise RunError("something else is there.", where=str(to), instead="Export to a new or an empty folder.")
    if to.resolve() in (source.resolve(), *source.resolve().parents):
        raise RunError("the export would replace what it is made of.", where=str(to), instead="Choose another folder.")


def _base_choice(
    source: Path, folder: Path, base: ModelChoice | models.Choice | str | None
) -> ModelChoice | models.Choice | str:
    if base is not None:
        return base
    if (source / "recipe.yaml").is_file():
        import yaml

        said = yaml.safe_load((source / "recipe.yaml").read_text(encoding="utf-8"))["model"]
        if isinstance(said, str):
            return said
        known = {key: value for key, value in said.items() if key in models.Choice._fields}
        return models.Choice(**known | {"load_in_4bit": False})  # checking and merging want the base unrounded
    return base_of(folder) if (folder / CONFIG).is_file() else str(folder)


def base_of(folder: Path) -> models.Choice:
    """The model that the adapter in ``folder`` says it was made for.

    Raises:
        ModelError: it does not say.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if not config.get("base_model_name_or_path"):
        raise ModelError("the adapter does not say what its base is.", where=str(folder), instead="Name it as base.")
    return models.Choice(config["base_model_name_or_path"], config.get("revision"))


# ------------------------------------------------------------------------------------------------------- parts


def _save_peft(model: Any, temporary: Path, folder: Path, initial: Path | None) -> None:
    name = model.active_adapter
    if _residual_base(model.peft_config[name]) and initial is None:
        raise ModelError(
            "the adapter's start was taken out of the base, and was not kept.",
            where=str(folder),
            instead="Call write_initial right after attaching, and pass its folder as initial.",
        )
    options: dict[str, Any] = {"selected_adapters": [name], "save_embedding_layers": False}
    if initial is None or not _residual_base(model.peft_config[name]):
        model.save_pretrained(temporary, **options)
    else:
        # PEFT loads the start as a further adapter, named after its folder, and rewrites that folder's configuration.
        with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*changes the base weights")  # the conversion is the cure
            start = shutil.copytree(initial, Path(scratch) / "grainline_start")
            model.save_pretrained(temporary, path_initial_model_for_weight_conversion=str(start), **options)
    if name != "default":  # PEFT puts adapters of other names into a folder of their own
        for file in (temporary / name).iterdir():
            file.replace(temporary / file.name)
        (temporary / name).rmdir()


def _residual_base(config: Any) -> bool:
    return str(getattr(config, "init_lora_weights", "")).startswith(("pissa", "olora", "corda", "lora_ga"))


def _save_model(model: Any, folder: Path, tokenizer: Any) -> None:
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _read_model(folder: Path, like: nn.Module) -> Any:
    first = next(like.parameters())
    return type(like).from_pretrained(folder, dtype=first.dtype, use_safetensors=True).to(first.device)  # type: ignore[attr-defined]


def _write_facts(folder: Path, format: str, model: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    import importlib.metadata

    versions = {name: importlib.metadata.version(name) for name in ("grainline", "torch", "transformers", "peft")}
    base = str(getattr(model.get_base_model() if _is_peft(model) else model, "name_or_path", ""))
    said = {"format": format, "base": base, **facts, "versions": versions}
    (folder / "export.json").write_text(json.dumps(said, indent=1), encoding="utf-8")
    return said


def _is_peft(model: Any) -> bool:
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def _ids(tokenizer: Any, ids: Sequence[int] | None) -> Sequence[int]:
    if ids is None and tokenizer is None:
        raise ModelError("a probe needs tokens.", where="export", instead="Pass ids or a tokenizer.")
    return probe.tokens(tokenizer) if ids is None else ids
