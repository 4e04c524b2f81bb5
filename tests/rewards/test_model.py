"""Reward models against a plain forward of transformers, row by row: a causal classifier and one of BERT's kind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import _toy
from grainline import rooms
from grainline.errors import ModelError, SpecError
from grainline.rewards._seam import Asked, Desk, Duel

CHAT = ({"role": "user", "content": "tell me of the sky"},)
ANSWERS = ("glad kind. yes sure warm.", "no", "never bad cold rude go no never bad cold. go.", "sure")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random classifiers on disk."""
    root = tmp_path_factory.mktemp("rewards")
    words = _toy.tokenizer()
    common = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    causal = transformers.LlamaConfig(
        **common, vocab_size=len(words), num_labels=1, pad_token_id=None, initializer_range=0.3,
        eos_token_id=words.eos_token_id, bos_token_id=None, max_position_embeddings=200,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.LlamaForSequenceClassification(causal).save_pretrained(root / "causal")
        bert = transformers.BertConfig(
            **common, vocab_size=40, num_labels=3, id2label={0: "bad", 1: "fair", 2: "good"}, initializer_range=0.5
        )
        transformers.BertForSequenceClassification(bert).save_pretrained(root / "bert")
    words.save_pretrained(root / "causal")
    _bert_words().save_pretrained(root / "bert")
    return root


def _bert_words() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    listed = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "tell", "me", "of", "the", ".", *_toy.WARM, *_toy.COLD, *_toy.THINGS]
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(listed)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return transformers.BertTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def said(text: str, asked: list[Asked], desk: Path) -> list[tuple[float, ...]]:
    with rooms.parse("rewards", text).open(Desk(desk)) as reward:
        return [tuple(row[0] for row in scores.value) for scores in reward.score(asked)]


def plain(folder: Path, *rows: Any) -> torch.Tensor:
    """Logits of transformers' own forward, row by row, without batch and padding."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return torch.cat([model(**row).logits for row in rows])


def chats(folder: Path, *answers: str) -> list[Any]:
    words = transformers.AutoTokenizer.from_pretrained(folder)
    turns = [[*CHAT, {"role": "assistant", "content": answer}] for answer in answers]
    return [words.apply_chat_template(t, tokenize=True, return_dict=True, return_tensors="pt") for t in turns]


def test_a_causal_classifier_says_what_transformers_says(folder: Path, tmp_path: Path, one_thread: None) -> None:
    """In batches, with padding, though its configuration knows no padding; and from the shelf the second time."""
    truth = plain(folder / "causal", *chats(folder / "causal", *ANSWERS))[:, 0].tolist()
    text = f"model:model={folder / 'causal'}"
    asked = [Asked(CHAT, answer) for answer in ANSWERS]
    first = said(text, asked, tmp_path)
    assert [value for (value,) in first] == pytest.approx(truth, abs=1e-5)
    assert max(truth) - min(truth) > 0.05
    assert said(text, asked[::-1], tmp_path) == first[::-1]


def test_a_bert_reads_a_pair_of_texts(folder: Path, tmp_path: Path, one_thread: None) -> None:
    words = transformers.AutoTokenizer.from_pretrained(folder / "bert")
    rows = [words(CHAT[0]["content"], answer, return_tensors="pt") for answer in ANSWERS]
    assert rows[0]["token_type_ids"].any()
    truth = plain(folder / "bert", *rows)
    found = said(f"model:model={folder / 'bert'},label=good", [Asked(CHAT, answer) for answer in ANSWERS], tmp_path)
    assert [value for (value,) in found] == pytest.approx(truth[:, 2].tolist(), abs=1e-5)


def test_where_positions_begin_behind_the_padding_fewer_tokens_can_be_read(tmp_path: Path, one_thread: None) -> None:
    """RoBERTa's first position is that of its padding plus one: of a table of 12 places 11 can be taken."""
    config = transformers.RobertaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_labels=1,
        max_position_embeddings=12, pad_token_id=0, type_vocab_size=2,
    )  # fmt: skip
    transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path / "roberta")
    words = _bert_words()
    words.save_pretrained(tmp_path / "roberta")
    fits, beyond = ("sure " * n for n in (3, 4))
    assert len(words(CHAT[0]["content"], fits)["input_ids"]) == 11
    found = said(f"model:model={tmp_path / 'roberta'}", [Asked(CHAT, fits), Asked(CHAT, beyond)], tmp_path)
    assert [math.isnan(value) for (value,) in found] == [False, True]


def test_option_segments(folder: Path, tmp_path: Path, one_thread: None) -> None:
    """Each piece by the answer up to its end; gains add up to the whole, less what no answer is worth."""
    answer, pieces = ANSWERS[0], ((0, 11), (11, 25))
    truth = plain(folder / "causal", *chats(folder / "causal", "", answer[:11], answer))[:, 0].tolist()
    text, asked = f"model:model={folder / 'causal'}", [Asked(CHAT, answer, pieces, ("a", "b"))]
    assert said(text, asked, tmp_path) == [pytest.approx(truth[1:], abs=1e-5)]
    gains = said(f"{text},segments=gain", asked, tmp_path)
    assert gains == [pytest.approx([truth[1] - truth[0], truth[2] - truth[1]], abs=1e-5)]
    with rooms.parse("rewards", text).open(Desk(tmp_path)) as reward:
        (scores,) = reward.score(asked)
    assert all(len(set(row)) == 1 and len(row) == 2 for row in scores.value)


def test_option_squash(folder: Path, tmp_path: Path, one_thread: None) -> None:
    asked = [Asked(CHAT, answer) for answer in ANSWERS]
    logits = said(f"model:model={folder / 'causal'}", asked, tmp_path)
    odds = said(f"model:model={folder / 'causal'},squash=true", asked, tmp_path)
    assert [p for (p,) in odds] == pytest.approx([1 / (1 + math.exp(-x)) for (x,) in logits], abs=1e-6)
    every = [said(f"model:model={folder / 'bert'},squash=true,label={k}", asked[:1], tmp_path)[0][0] for k in range(3)]
    assert sum(every) == pytest.approx(1)
    between = [
        rooms.parse("rewards", f"model:{o}").between
        for o in ("squash=false", "squash=true", "squash=true,segments=gain")
    ]
    assert between == [None, (0, 1), (-1, 1)]


def test_option_label(folder: Path, tmp_path: Path) -> None:
    asked = [Asked(CHAT, "yes")]
    by_name, by_number = (said(f"model:model={folder / 'bert'},label={x}", asked, tmp_path) for x in ("bad", 0))
    assert by_name == by_number
    with pytest.raises(SpecError, match=r"3 outputs. Say which is the score: bad, fair, good"):
        said(f"model:model={folder / 'bert'}", asked, tmp_path)
    with pytest.raises(SpecError, match=r"no output 'god'. Did you mean 'good'"):
        said(f"model:model={folder / 'bert'},label=god", asked, tmp_path)


def test_option_form(folder: Path, tmp_path: Path, one_thread: None) -> None:
    """One text after the other; a plain prompt is no chat unless that is asked for."""
    words = transformers.AutoTokenizer.from_pretrained(folder / "causal")
    text, asked = f"model:model={folder / 'causal'}", [Asked("tell me of the sky", " yes")]
    (truth,) = plain(folder / "causal", words("tell me of the sky yes", return_tensors="pt"))[:, 0].tolist()
    assert (
        said(text, asked, tmp_path) == said(f"{text},form=text", asked, tmp_path) == [(pytest.approx(truth, abs=1e-5),)]
    )
    (chat,) = plain(folder / "causal", *chats(folder / "causal", " yes"))[:, 0].tolist()
    assert said(f"{text},form=chat", asked, tmp_path) == [(pytest.approx(chat, abs=1e-5),)]
    with pytest.raises(ModelError, match="no chat template"):
        said(f"model:model={folder / 'bert'},label=good,form=chat", asked, tmp_path)


def test_option_max_length(folder: Path, tmp_path: Path) -> None:
    """What is too long is not cut but left alone."""
    text, asked = f"model:model={folder / 'causal'}", [Asked(CHAT, "yes"), Asked(CHAT, "yes " * 300)]
    (short,), (long,) = said(text, asked, tmp_path)
    assert (math.isnan(short), math.isnan(long)) == (False, True)
    assert math.isnan(said(f"{text},max_length=5", asked[:1], tmp_path)[0][0])


def test_option_max_tokens(folder: Path, tmp_path: Path, one_thread: None) -> None:
    """A row at a time gives the same numbers."""
    asked = [Asked(CHAT, answer) for answer in ANSWERS]
    text = f"model:model={folder / 'causal'}"
    together, alone = said(text, asked, tmp_path / "a"), said(f"{text},max_tokens=1", asked, tmp_path / "b")
    assert len(list((tmp_path / "a").rglob("*.safetensors"))) == 1
    assert len(list((tmp_path / "b").rglob("*.safetensors"))) == len(ANSWERS)
    assert alone == [pytest.approx(row, abs=1e-5) for row in together]


def test_option_dtype(folder: Path, tmp_path: Path) -> None:
    text, asked = f"model:model={folder / 'causal'}", [Asked(CHAT, "yes sure")]
    ((exact,),), ((half,),) = said(text, asked, tmp_path), said(f"{text},dtype=bfloat16", asked, tmp_path)
    assert 0 < abs(exact - half) < 0.2


def test_option_device(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="device nowhere"):
        said(f"model:model={folder / 'causal'},device=nowhere", [], tmp_path)


def test_option_revision(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no/such"):
        said("model:model=no/such,revision=r1", [], tmp_path)


def test_option_model(folder: Path, tmp_path: Path, toy: Any) -> None:
    """A language model without a head for scores is none, and no model at all is said."""
    with pytest.raises(SpecError, match="no reward model is named"):
        said("model", [], tmp_path)
    with pytest.raises(ModelError, match=r"score.weight. Is it a classifier"):
        said(f"model:model={toy.model}", [], tmp_path)


def test_duels_follow_bradley_and_terry(folder: Path, tmp_path: Path) -> None:
    text = f"model:model={folder / 'causal'}"
    (first,), (second,) = said(text, [Asked(CHAT, answer) for answer in ANSWERS[:2]], tmp_path)
    with rooms.parse("rewards", text).open(Desk(tmp_path)) as reward:
        (won,) = reward.compare([Duel(CHAT, *ANSWERS[:2])])
    assert won == pytest.approx(1 / (1 + math.exp(second - first)))
    with rooms.parse("rewards", f"{text},squash=true").open(Desk(tmp_path)) as reward:
        assert list(reward.compare([Duel(CHAT, *ANSWERS[:2])])) == [float(first > second)]
