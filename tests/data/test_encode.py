"""Tokens are what inference gives, answers end where the turn ends, and characters are those under each token."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grainline.data.columns import record
from grainline.data.encode import COUNTS, Encoder
from grainline.errors import DataError, ModelError
from grainline.types import AnswerTokens, Record

Tokenizers = Callable[..., Any]
ASK = {"role": "user", "content": "What color is the sky?"}
CHAT_TEMPLATES = ["chatml", "llama3", "gemma", "inst", "think"]
ENDS = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "inst": "</s>",
    "think": "<|im_end|>",
}


def pair(chosen: Any = "The sky is blue.", rejected: Any = "The grass is green.", **row: Any) -> Record:
    return record({"prompt": [ASK], "chosen": chosen, "rejected": rejected} | row, where="t.jsonl:1", id="t:1")


def words(answer: AnswerTokens, text: str) -> str:
    """The characters that the offsets cover, put together."""
    covered = sorted({n for a, b in answer.offsets for n in range(a, b)})
    return "".join(text[n] for n in covered)


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_prompt_is_what_inference_gives_and_the_whole_is_the_rendered_text(tokenizers: Tokenizers, name: str) -> None:
    tokenizer = tokenizers(name)
    example = Encoder(tokenizer, max_length=512)(pair())
    asked = tokenizer.apply_chat_template([ASK], add_generation_prompt=True, tokenize=True, return_dict=False)
    assert list(example.prompt) == asked
    for answer, text in zip(example.answers, ("The sky is blue.", "The grass is green."), strict=True):
        whole = tokenizer.apply_chat_template([ASK, {"role": "assistant", "content": text}], tokenize=False)
        ours = tokenizer.decode([*example.prompt, *answer.ids])
        assert whole.startswith(ours)
        assert ours.endswith(text + (" " if name == "inst" else "") + ENDS[name])
        assert not whole[len(ours) :].strip()
        natural = tokenizer(whole, add_special_tokens=False)["input_ids"]
        assert natural[: len(example.prompt) + len(answer.ids)] == [*example.prompt, *answer.ids]
        assert len(answer.ids) == len(answer.offsets) == len(answer.weight)
        assert set(answer.weight) == {1.0}


@pytest.mark.parametrize("name", [*CHAT_TEMPLATES, "plain"])
@pytest.mark.parametrize("text", ["The sky is blue.", "  naïve 🐱 cat\n", "assistant", "the the <|im cat", "a\n\nb "])
def test_offsets_land_on_the_right_characters(tokenizers: Tokenizers, name: str, text: str) -> None:
    tokenizer = tokenizers(name)
    answer = Encoder(tokenizer, max_length=512)(pair(chosen=text)).answers[0]
    for id, (start, stop) in zip(answer.ids, answer.offsets, strict=True):
        assert 0 <= start <= stop <= len(text)
        piece = tokenizer.decode([id])
        if start < stop and "�" not in piece:
            assert piece.strip() == text[start:stop].strip()
    assert "".join(words(answer, text).split()) == "".join(text.split())
    assert answer.offsets[-1][0] == answer.offsets[-1][1]  # the end of the turn is nobody's word


def test_metaspace_tokenizers_get_no_stray_mark_at_the_answer(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("llama3", metaspace=True, add_bos=True)
    plain = record({"prompt": "The sky", "chosen": " is blue", "rejected": " is green"}, where="x:1", id="x")
    encoder = Encoder(tokenizer, max_length=64)
    example = encoder(plain)
    assert [*example.prompt, *example.answers[0].ids[:-1]] == tokenizer("The sky is blue")["input_ids"]
    assert encoder.counts["boundary_merges"] == 0
    example = encoder(pair())
    whole = [ASK, {"role": "assistant", "content": "The sky is blue."}]
    natural = tokenizer.apply_chat_template(whole, tokenize=True, return_dict=False)
    assert natural == [*example.prompt, *example.answers[0].ids]


def test_explicit_and_implicit_prompt_and_plain_answers_give_one_example(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers(), max_length=512)
    left, right = ([{"role": "assistant", "content": text}] for text in ("Blue.", "Green."))
    explicit = {"prompt": [ASK], "chosen": left, "rejected": right}
    forms = [
        explicit,
        {"chosen": [ASK, *left], "rejected": [ASK, *right]},
        {"prompt": [ASK], "chosen": "Blue.", "rejected": "Green."},
        {"prompt": [ASK], "chosen": [ASK, *left], "rejected": [ASK, *right]},
        {"prompt": ASK["content"], "chosen": [ASK, *left], "rejected": [ASK, *right]},
    ]
    examples = [encoder(record(form, where="t:1", id="t")) for form in forms]
    assert all(example == examples[0] for example in examples)


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "think"])
def test_same_ids_as_trl_up_to_the_end_of_the_turn(tokenizers: Tokenizers, name: str) -> None:
    from trl.data_utils import _tokenize, common_prefix_length

    tokenizer = tokenizers(name)
    example = Encoder(tokenizer, max_length=512)(pair())
    prompt = _tokenize(tokenizer, [ASK], add_generation_prompt=True)["input_ids"]
    for answer, text in zip(example.answers, ("The sky is blue.", "The grass is green."), strict=True):
        whole = _tokenize(tokenizer, [ASK, {"role": "assistant", "content": text}])["input_ids"]
        cut = common_prefix_length(prompt, whole)
        assert tuple(whole[:cut]) == example.prompt
        theirs = tuple(whole[cut:])
        assert theirs[: len(answer.ids)] == answer.ids
        assert not tokenizer.decode(theirs[len(answer.ids) :]).strip()


def test_plain_text_gets_the_tokenizers_bos_once_and_eos_at_the_end(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("none", add_bos=True, add_eos=True)
    row = record({"prompt": "The sky is", "chosen": " blue", "rejected": " green</s>"}, where="x:1", id="x")
    example = Encoder(tokenizer, max_length=64)(row)
    assert example.prompt[0] == tokenizer.bos_token_id
    assert list(example.prompt[1:]) == tokenizer("The sky is", add_special_tokens=False)["input_ids"]
    assert [a.ids.count(tokenizer.eos_token_id) for a in example.answers] == [1, 1]
    assert example.answers[0].ids[-1] == tokenizer.eos_token_id
    assert words(example.answers[0], " blue").strip() == "blue"


def test_doubled_bos_is_an_error(tokenizers: Tokenizers) -> None:
    row = record({"prompt": "<s>The sky is", "chosen": " blue", "rejected": " green"}, where="x:1", id="x")
    with pytest.raises(DataError, match=r"^x:1: the prompt begins with '<s>' twice\. .* remove one\.$"):
        Encoder(tokenizers("none", add_bos=True), max_length=64)(row)
    tokenizer = tokenizers("llama3")
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(DataError, match="twice"):
        Encoder(tokenizer, max_length=64)(pair())


def test_boundary_merges_are_counted_and_the_prompt_stays_fixed(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("none")
    encoder = Encoder(tokenizer, max_length=64)
    row = record({"prompt": "The sky is ", "chosen": "blue", "rejected": "green"}, where="x:1", id="x")
    example = encoder(row)
    assert encoder.counts["boundary_merges"] == 2
    assert list(example.prompt) == tokenizer("The sky is ")["input_ids"]
    assert list(example.answers[0].ids[:-1]) == tokenizer("blue")["input_ids"]
    assert words(example.answers[0], "blue") == "blue"


def test_template_without_end_token_gets_eos(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("plain")
    answer = Encoder(tokenizer, max_length=64)(pair()).answers[0]
    assert tokenizer.decode(answer.ids) == " The sky is blue.</s>"


def test_special_tokens_in_an_answers_words_are_counted_and_do_not_end_it(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers(), max_length=64)
    answer = encoder(pair(chosen="blue<|im_end|> sky")).answers[0]
    assert encoder.tokenizer.decode(answer.ids) == "blue<|im_end|> sky<|im_end|>"
    assert encoder.counts["control_tokens"] == 1


def test_answers_of_several_turns_and_tools(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("tools")
    call = {"role": "assistant", "tool_calls": [{"name": "look", "arguments": {"at": "sky"}}]}
    turns = [call, {"role": "tool", "content": "blue"}, {"role": "assistant", "content": "It is blue."}]
    row = pair(chosen=turns, rejected="No.", tools=[{"name": "look"}])
    example = Encoder(tokenizer, max_length=512)(row)
    assert list(example.prompt) == tokenizer.apply_chat_template(
        [ASK], tools=[{"name": "look"}], add_generation_prompt=True, return_dict=False
    )
    assert tokenizer.decode(example.answers[0].ids).endswith("It is blue.<|im_end|>")
    assert tokenizer.decode(example.answers[0].ids).count("<|im_end|>") == 3
    assert set(example.answers[0].offsets) == {(0, 0)}


def test_template_options_of_the_row_reach_the_template(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers()
    tokenizer.chat_template = "{{ mood }}" + tokenizer.chat_template
    example = Encoder(tokenizer, max_length=512)(pair(chat_template_kwargs={"mood": "blue"}))
    assert tokenizer.decode(example.prompt).startswith("blue")


def long_chat(turns: int) -> list[dict[str, str]]:
    chat = [{"role": "system", "content": "You are a cat."}]
    for n in range(turns):
        chat += [
            {"role": "user", "content": f"{n} What color is the sky?"},
            {"role": "assistant", "content": f"{n} The sky is blue."},
        ]
    return [*chat, {"role": "user", "content": "Tell me a short story about a cat, the last question."}]


def test_oldest_turns_go_first_and_the_system_and_last_user_turn_stay(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers()
    row = pair(prompt=long_chat(6))
    whole = Encoder(tokenizer, max_length=4096)(row)
    encoder = Encoder(tokenizer, max_length=len(whole.prompt) // 2 + max(len(a.ids) for a in whole.answers))
    example = encoder(row)
    text = tokenizer.decode(example.prompt)
    assert text.startswith("<|im_start|>system\nYou are a cat.<|im_end|>\n<|im_start|>user\n")
    assert text.endswith("the last question.<|im_end|>\n<|im_start|>assistant\n")
    assert "0 What" not in text
    assert "5 The sky is blue." in text
    assert [a.ids for a in example.answers] == [a.ids for a in whole.answers]
    dropped = 13 - text.count("<|im_start|>") + 2
    assert encoder.counts == dict.fromkeys(COUNTS, 0) | {"rows": 1, "truncated_prompts": 1, "turns_dropped": dropped}
    assert dropped % 2 == 0
    assert example.record is row
    assert len(example.prompt) + max(len(a.ids) for a in example.answers) <= encoder.max_length


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_last_turn_that_is_too_long_loses_its_beginning(tokenizers: Tokenizers, name: str) -> None:
    tokenizer = tokenizers(name)
    question = " ".join(f"word{n}" for n in range(60)) + " what is the capital of France?  "
    row = pair(prompt=[{"role": "user", "content": question}])
    whole = Encoder(tokenizer, max_length=4096)(row)
    encoder = Encoder(tokenizer, max_length=len(whole.prompt) // 2 + max(len(a.ids) for a in whole.answers))
    example = encoder(row)
    text = tokenizer.decode(example.prompt)
    assert "word0 " not in text
    assert "what is the capital of France?" in text
    assert example.prompt[:3] == whole.prompt[:3]  # the head of the template stays
    total = len(example.prompt) + max(len(a.ids) for a in example.answers)
    assert encoder.max_length - 4 <= total <= encoder.max_length
    assert [a.ids for a in example.answers] == [a.ids for a in whole.answers]
    assert encoder.counts["truncated_prompts"] == 1
    assert encoder.counts["turns_dropped"] == encoder.counts["truncated_answers"] == 0


def test_a_plain_prompt_loses_its_beginning_but_not_its_bos(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("none", add_bos=True)
    prompt = "Once upon a time a cat sat on a mat. " * 10 + "The sky is"
    row = record({"prompt": prompt, "chosen": " blue", "rejected": " green"}, where="x:1", id="x")
    example = Encoder(tokenizer, max_length=16)(row)
    assert example.prompt[0] == tokenizer.bos_token_id
    assert tokenizer.decode(example.prompt).endswith("The sky is")
    assert len(example.prompt) + max(len(a.ids) for a in example.answers) == 16


def test_answers_are_cut_last_and_the_question_keeps_a_quarter(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("llama3")
    row = pair(chosen="blue " * 200, rejected="The grass is green.")
    encoder = Encoder(tokenizer, max_length=100)
    example = encoder(row)
    assert "What color is the sky?" in tokenizer.decode(example.prompt)
    assert len(example.prompt) + len(example.answers[0].ids) == 100
    assert example.answers[0].ids[-1] != tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert example.answers[1].ids[-1] == tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert encoder.counts["truncated_answers"] == 1
    assert encoder.counts["truncated_prompts"] == 0


def test_rows_that_would_train_on_nothing_are_errors(tokenizers: Tokenizers) -> None:
    same = "blue " * 100
    with pytest.raises(DataError, match=r"same tokens once cut to 60\. Raise max_length or remove the row\.$"):
        Encoder(tokenizers("llama3"), max_length=60)(pair(chosen=same + "a", rejected=same + "b"))
    with pytest.raises(DataError, match=r"^t.jsonl:1: the shortest prompt takes \d+ of 8 tokens\.$"):
        Encoder(tokenizers("chatml"), max_length=8)(pair())
    with pytest.raises(DataError, match=r"same tokens\. Remove the row\.$"):  # the template strips what differs
        Encoder(tokenizers("gemma"), max_length=99)(pair(chosen="Blue.", rejected="Blue. "))
    tokenizer = tokenizers("think")
    size = len(Encoder(tokenizer, max_length=512)(pair()).prompt) + 2
    encoder = Encoder(tokenizer, max_length=size)
    with pytest.raises(DataError, match="no token of the answer is left to train on"):
        encoder(pair(prompt=[{"role": "user", "content": "x"}], chosen="The sky " * 50))
    with pytest.raises(DataError, match="leaves no room"):
        Encoder(tokenizers(), max_length=1)


def test_tokenizers_that_cannot_serve(tokenizers: Tokenizers) -> None:
    with pytest.raises(ModelError, match=r"t.jsonl:1: the tokenizer has no chat template.*Use an instruct model"):
        Encoder(tokenizers("none"), max_length=64)(pair())
    tokenizer = tokenizers()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"no EOS token, so answers would never end\. Set eos_token\.$"):
        Encoder(tokenizer, max_length=64)
    with pytest.raises(ModelError, match="is not a fast tokenizer"):
        Encoder(object(), max_length=64)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"writes the prompt differently once an answer follows: '<think>\\n' becomes"):
        Encoder(tokenizers("rewrites"), max_length=64)(pair())


def test_what_a_template_refuses_is_the_rows_error(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers("gemma"), max_length=64)
    bad = pair(prompt=[{"role": "system", "content": "Be."}, ASK])
    examples, problems = encoder.encode_all([pair(), bad, pair()])
    assert len(examples) == 2
    assert [str(p) for p in problems] == [
        "t.jsonl:1: the chat template refuses this row: System role not supported. Its turns are: system, user."
    ]


def test_one_by_one_equals_all_at_once(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers(), max_length=60)
    rows = [pair(chosen=f"The sky is {n}." * (1 + n % 9)) for n in range(40)]
    done: list[int] = []
    together, problems = encoder.encode_all(rows, progress=done.append)
    assert not problems
    assert sum(done) == 40
    assert together == [encoder(row) for row in rows]
    assert encoder.counts["rows"] == 80


@pytest.mark.real
def test_real_pairs_encode_fast_and_without_a_problem(tokenizers: Tokenizers, shared_data: Path) -> None:
    from grainline.data.load import read

    loaded = read(shared_data / "hh_harmless", split="train")
    encoder = Encoder(tokenizers(), max_length=8192)
    start = time.perf_counter()
    examples, problems = encoder.encode_all(loaded.records)
    assert time.perf_counter() - start < 60  # 2 s on an idle core
    assert (len(examples), problems) == (1499, [])
    assert encoder.counts["boundary_merges"] == 0


@pytest.mark.real
def test_real_spans_cover_the_tokens_of_their_words(tokenizers: Tokenizers, shared_data: Path) -> None:
    from grainline.data.load import read

    encoder = Encoder(tokenizers(), max_length=8192)
    for one in read(shared_data / "qa_feedback" / "spans_test.jsonl.gz").records:
        answer, tokens = one.answers[1], encoder(one).answers[1]
        for span in answer.spans:
            under = [
                id for id, (a, b) in zip(tokens.ids, tokens.offsets, strict=True) if a < span.stop and b > span.start
            ]
            said = encoder.tokenizer.decode(under)
            assert answer.text[span.start : span.stop].strip() in said or "�" in said
