"""The cache: exact, addressed by content, never half written, and suspicious."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from _build import example, many, model
from grainline import reference_cache
from grainline.data.collate import collate
from grainline.errors import RunError
from grainline.forward import Scorer
from grainline.reference_cache import ReferenceCache
from grainline.types import Batch, Example, LogProbs

Score = Callable[[Batch], LogProbs]


@pytest.fixture
def score(one_thread: None) -> Score:
    scorer = Scorer(model("llama", vocab_size=96))
    return torch.no_grad()(scorer)


def forwards(examples: list[Example], size: int = 3) -> list[Batch]:
    return [collate(examples[i : i + size]) for i in range(0, len(examples), size)]


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_cached_values_are_the_fresh_ones(tmp_path: Path, score: Score) -> None:
    batches = forwards(many(10))
    ReferenceCache(tmp_path).fill(batches, score)
    again = ReferenceCache(tmp_path)  # from the disk
    assert again.missing(batches) == []
    for batch in batches:
        fresh, cached = score(batch), again(batch)
        assert torch.equal(cached.token, fresh.token)
        assert torch.equal(cached.mask, fresh.mask)
        assert cached.weight is batch.weight
        assert cached.token.device == batch.rows.device
        assert cached.token.dtype == torch.float32


def test_rows_come_in_the_batchs_order_and_width(tmp_path: Path, score: Score) -> None:
    """Filled in one arrangement, asked in another: other neighbours, other order, rows that share an answer."""
    examples = many(10, prompts=3)
    cache = ReferenceCache(tmp_path)
    cache.fill(forwards(examples), score)
    twice = [*reversed(examples), examples[4], example("mixed", examples[0].prompt, examples[3].answers[0].ids, [5])]
    cache.fill([collate(twice[-1:])], score)
    batch = collate(twice)
    assert len(set(batch.keys)) < len(batch.keys)
    assert torch.allclose(cache(batch).token, score(batch).token, rtol=0, atol=1e-5)
    assert torch.equal(cache(batch).token[0], cache(collate(examples)).token[9])


def test_other_prompt_or_answer_is_another_address(tmp_path: Path, score: Score) -> None:
    cache = ReferenceCache(tmp_path)
    batch = collate([example(0, [3, 4, 5], [6, 7], [8, 9])])
    cache.fill([batch], score)
    for other in ([3, 4], [6, 7], [8, 9]), ([3, 4, 5], [6, 8], [8, 9]), ([3, 4, 5, 6], [7], [8, 9]):
        changed = collate([example(0, *other)])
        assert cache.missing([batch, changed]) == [changed]
        with pytest.raises(RunError, match="no reference log-probs of answer"):
            cache(changed)
    renamed = collate([example("another row", [3, 4, 5], [8, 9], [6, 7], weights=[(2, 2), (2, 2)])])
    assert cache.missing([renamed]) == []  # neither the row's name nor its weights are part of it
    assert torch.equal(cache(renamed).token, cache(batch).token.flip(0))


def test_interrupted_fill_keeps_what_it_had(tmp_path: Path, score: Score, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = forwards(many(12))

    def dies(batch: Batch) -> LogProbs:
        if batch is batches[2]:
            raise KeyboardInterrupt
        return score(batch)

    monkeypatch.setattr(reference_cache, "ANSWERS_A_FILE", 4)
    with pytest.raises(KeyboardInterrupt):
        ReferenceCache(tmp_path).fill(batches, dies)
    again = ReferenceCache(tmp_path)
    assert again.missing(batches) == batches[2:]
    again.fill(again.missing(batches), score)
    assert len(files(tmp_path)) > 2  # several files, read as one
    assert ReferenceCache(tmp_path).missing(batches) == []
    for batch in batches:
        assert torch.equal(ReferenceCache(tmp_path)(batch).token, score(batch).token)


def test_nothing_temporary_is_left_and_a_crash_while_writing_is_invisible(
    tmp_path: Path, score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = forwards(many(6))
    cache = ReferenceCache(tmp_path)
    cache.fill(batches[:1], score)
    assert all(name.endswith(".safetensors") and not name.startswith(".") for name in files(tmp_path))
    before = files(tmp_path)
    real = save_file

    def half(tensors: dict[str, torch.Tensor], file: Path) -> None:
        real(tensors, file)
        file.write_bytes(file.read_bytes()[:50])
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        cache.fill(batches[1:], score)
    assert [name for name in files(tmp_path) if name.endswith(".safetensors")] == before
    assert ReferenceCache(tmp_path).missing(batches) == batches[1:]


def test_files_are_written_once_however_often_filled(tmp_path: Path, score: Score) -> None:
    batches = forwards(many(6))
    cache = ReferenceCache(tmp_path)
    cache.fill(batches, score)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    cache.fill(batches, score)
    ReferenceCache(tmp_path).fill(batches, score)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)} == before


def test_two_caches_share_a_folder(tmp_path: Path, score: Score) -> None:
    batches = forwards(many(12))
    one, two = ReferenceCache(tmp_path), ReferenceCache(tmp_path)
    one.fill(batches[:2], score)
    two.fill(batches[1:], score)  # did not know of the other: batches[1] is written twice, to no harm
    for cache in (one, two):
        cache.reload()
        assert cache.missing(batches) == []
        for batch in batches:
            assert torch.equal(cache(batch).token, score(batch).token)


def test_damaged_file(tmp_path: Path, score: Score) -> None:
    ReferenceCache(tmp_path).fill(forwards(many(3)), score)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(RunError, match=rf"{file.name}: unreadable cache file.*Delete it"):
        ReferenceCache(tmp_path)


def test_nan_on_disk(tmp_path: Path, score: Score) -> None:
    ReferenceCache(tmp_path).fill(forwards(many(3)), score)
    (file,) = tmp_path.iterdir()
    tensors = load_file(file)
    tensors["logprobs"][3] = float("nan")
    save_file(tensors, file)
    with pytest.raises(RunError, match="NaN among the reference log-probs"):
        ReferenceCache(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_non_finite_reference_is_never_written(tmp_path: Path, score: Score, value: float) -> None:
    batches = forwards(many(3))

    def broken(batch: Batch) -> LogProbs:
        found = score(batch)
        found.token[1, 0] = value
        return found

    with pytest.raises(RunError, match=f"non-finite log-prob for answer {batches[0].keys[1][:12]}"):
        ReferenceCache(tmp_path).fill(batches, broken)
    assert files(tmp_path) == []


def test_verify(tmp_path: Path, score: Score) -> None:
    batches = forwards(many(9))
    cache = ReferenceCache(tmp_path)
    cache.fill(batches, score)
    assert cache.verify(batches[0], score, tolerance=0.0) == 0.0

    def other(batch: Batch) -> LogProbs:
        found = score(batch)
        return found._replace(token=found.token + 0.25 * found.mask)

    assert cache.verify(batches[0], other, tolerance=0.3) == pytest.approx(0.25, abs=1e-5)
    with pytest.raises(RunError, match=r"differ from the model's by 2\.5e-01 nats \(allowed: 1e-03\)"):
        cache.verify(batches[0], other, tolerance=1e-3)

    def blind(batch: Batch) -> LogProbs:
        return score(batch)._replace(token=torch.full(batch.rows.shape, float("nan")))

    with pytest.raises(RunError, match="by nan nats"):
        cache.verify(batches[0], blind, tolerance=1e9)


def test_a_float64_model_is_kept_in_float32(tmp_path: Path) -> None:
    """References always pass through the cache's representation, in the first run as in the second."""
    scorer = torch.no_grad()(Scorer(model("llama", torch.float64, vocab_size=96)))
    batches = forwards(many(3))
    cache = ReferenceCache(tmp_path)
    cache.fill(batches, scorer)
    assert torch.equal(cache(batches[0]).token, scorer(batches[0]).token.float())
    assert torch.equal(ReferenceCache(tmp_path)(batches[0]).token, cache(batches[0]).token)


def test_hidden_states_are_cached_beside_log_probs(tmp_path: Path) -> None:
    """They come back to the last bit, in the model's dtype; answers cached without them are scored again."""
    scorer = Scorer(model("llama", torch.bfloat16, vocab_size=96))

    def score(batch: Batch) -> LogProbs:
        with torch.no_grad():
            return scorer(batch, keep=("activations", "layers"))

    batches = forwards(many(10))
    ReferenceCache(tmp_path).fill(batches[:1], score)
    cache = ReferenceCache(tmp_path, ("activations", "layers"))
    assert cache.missing(batches) == batches
    with pytest.raises(RunError, match="no reference log-probs and activations and layers of answer"):
        cache(batches[0])
    cache.fill(batches, score)
    again = ReferenceCache(tmp_path, ("activations", "layers"))
    assert again.missing(batches) == []
    for batch in batches:
        fresh, cached = score(batch), again(batch)
        assert torch.equal(cached.token, fresh.token)
        assert fresh.hidden is not None
        assert cached.hidden is not None
        assert cached.hidden.dtype == torch.bfloat16
        assert torch.equal(cached.hidden, fresh.hidden)
        assert torch.equal(cached.activations.nan_to_num(), fresh.activations.nan_to_num())  # type: ignore[union-attr]
    plain = ReferenceCache(tmp_path)  # who asks for log-probs alone is not troubled
    assert plain.missing(batches) == []
    assert plain(batches[0]).hidden is None


def test_large_parts_are_written_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(model("llama", vocab_size=96))
    monkeypatch.setattr(reference_cache, "BYTES_A_FILE", 1000)
    batches = forwards(many(9))
    ReferenceCache(tmp_path, ("hidden",)).fill(batches, torch.no_grad()(lambda b: scorer(b, keep=("hidden",))))
    assert len(files(tmp_path)) == len(batches)
    assert ReferenceCache(tmp_path, ("hidden",)).missing(batches) == []
