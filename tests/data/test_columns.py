"""Every form of row that TRL knows becomes one Record, and what cannot be used is told in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from grainline.data.columns import record, same_kind
from grainline.errors import DataError
from grainline.types import Answer, Record, Span

ASK = {"role": "user", "content": "What color is the sky?"}
SAYS = {"role": "assistant", "content": "It is blue."}
WRONG = {"role": "assistant", "content": "It is green."}
TEXTS = {"prompt": "The sky is", "chosen": " blue", "rejected": " green"}
CHATS = {"prompt": [ASK], "chosen": [SAYS], "rejected": [WRONG]}


def read(row: dict[str, Any]) -> Record:
    return record(row, where="a.jsonl:3", id="a:3")


def test_pairs_of_texts_and_chats() -> None:
    assert read(TEXTS) == Record("a:3", "The sky is", (Answer(" blue"), Answer(" green")), where="a.jsonl:3")
    assert read(CHATS) == Record("a:3", (ASK,), (Answer("It is blue."), Answer("It is green.")), where="a.jsonl:3")
    assert read({"prompt": [ASK], "chosen": "It is blue.", "rejected": [WRONG]}) == read(CHATS)


def test_implicit_prompt() -> None:
    assert read({"chosen": [ASK, SAYS], "rejected": [ASK, WRONG]}) == read(CHATS)
    assert read({"chosen": "The sky is blue", "rejected": "The sky is green"}) == read(TEXTS)


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue", "The sky is blank", "The sky is"),  # never inside a word
        ("Q: x\nA: yes", "Q: x\nA: no", "Q: x\nA:"),
        ("Q: x\nyes", "Q: x\nno", "Q: x\n"),  # only a space goes with the answer
        ("sit on it", "sit on it now", "sit on"),  # no answer is left empty
    ],
)
def test_implicit_text_prompt_ends_at_a_word(chosen: str, rejected: str, prompt: str) -> None:
    found = read({"chosen": chosen, "rejected": rejected})
    assert found.prompt == prompt
    assert [prompt + answer.text for answer in found.answers] == [chosen, rejected]


@pytest.mark.parametrize("words", ["The sky is blue|The sky is green", "Q: x\nA: yes|Q: x\nA: no", "a b\nc|a b\nd"])
def test_implicit_text_prompt_is_trls_where_trl_cuts_at_a_word(words: str) -> None:
    from trl.data_utils import extract_prompt

    chosen, rejected = words.split("|")
    theirs = extract_prompt({"chosen": chosen, "rejected": rejected})
    ours = read({"chosen": chosen, "rejected": rejected})
    assert (ours.prompt, *(a.text for a in ours.answers)) == (theirs["prompt"], theirs["chosen"], theirs["rejected"])


def test_labelled_and_supervised_rows() -> None:
    assert read({"prompt": [ASK], "completion": [WRONG], "label": False}).label is False
    assert read({"prompt": "The sky is", "completion": " blue"}).label is True
    chat = [{"role": "system", "content": ""}, ASK, SAYS, ASK, WRONG]
    found = read({"messages": chat})
    assert (found.prompt, found.answers, found.label) == (tuple(chat[:-1]), (Answer("It is green."),), True)
    assert not found.is_pair


def test_steps_become_spans_of_one_answer() -> None:
    found = read({"prompt": "2+2?", "completions": ["Two and two.", "Five."], "labels": [True, False]})
    answer = found.answers[0]
    assert answer.text == "Two and two.\nFive."
    assert answer.spans == (Span(0, 12, "correctness", 1.0), Span(13, 18, "correctness", 0.0))
    assert [answer.text[s.start : s.stop] for s in answer.spans] == ["Two and two.", "Five."]
    assert found.label is False
    assert read({"prompt": "2+2?", "completions": ["Four."], "labels": [True]}).label is True


def test_spans_scores_and_aspects() -> None:
    spans = [
        {"start": 0, "end": 3, "type": "Wrong", "aspect": "facts"},
        {"start": 3, "end": 6, "type": "Wrong", "aspect": None, "score": None},
        {"start": 1, "end": 2, "score": 0.7},
    ]
    found = read(TEXTS | {"rejected_spans": spans, "chosen_spans": []})
    assert found.answers[1].spans == (Span(0, 3, "facts", 0.0), Span(3, 6, "Wrong", 0.0), Span(1, 2, "", 0.7))
    assert found.answers[0].spans == ()
    row = {"prompt": [ASK], "completion": "No.", "completion_spans": [{"start": 0, "end": 2}]}
    assert read(row).answers[0].spans == (Span(0, 2, "", 0.0),)


def test_optional_columns() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    row = CHATS | {"weight": 2, "margin": -0.5, "tools": tools, "chat_template_kwargs": {"enable_thinking": False}}
    found = read(row | {"aspect": "harmless", "group": "g"})  # further columns are left alone
    assert (found.weight, found.margin, found.tools) == (2.0, -0.5, tuple(tools))
    assert found.template == {"enable_thinking": False}
    assert read(row | {"tools": '[{"type": "function", "function": {"name": "look"}}]'}).tools == tuple(tools)
    nulls = dict.fromkeys(["weight", "margin", "tools", "chat_template_kwargs", "label", "completion", "chosen_spans"])
    assert read(CHATS | nulls) == read(CHATS)


def test_further_columns_that_hold_a_number_are_kept() -> None:
    row = CHATS | {
        "chosen_uncertainty": 0.25,
        "rejected_uncertainty": 1,
        "flag": True,
        "note": "x",
        "id": 7,
        "margin": 2,
    }
    found = read(row | {"broken": float("nan"), "absent": None})
    assert found.numbers == (("chosen_uncertainty", 0.25), ("rejected_uncertainty", 1.0))
    assert read(CHATS).numbers == ()


def test_answers_of_several_turns_keep_their_messages() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "look"}]}
    turns = [call, {"role": "tool", "content": "blue"}, SAYS]
    answer = read(CHATS | {"chosen": turns}).answers[0]
    assert len(answer.messages) == 3
    assert "content" not in answer.messages[0]  # templates write "None" otherwise
    assert answer.text == '[{"name": "look"}]\nblue\nIt is blue.'


def test_text_parts_are_one_text() -> None:
    parts = [{"type": "text", "text": "What color "}, {"type": "text", "text": "is the sky?"}]
    assert read(CHATS | {"prompt": [{"role": "user", "content": parts}]}) == read(CHATS)


NAN = float("nan")
SPAN = {"start": 0, "end": 3}
BAD = {
    "null answer": ({"prompt": "a", "chosen": None, "rejected": "b"}, "column 'chosen' is missing or null."),
    "all null": ({"prompt": "a", "chosen": None, "rejected": None}, "chosen is null."),
    "NaN answer": (TEXTS | {"chosen": NAN}, " chosen: NaN is not text."),
    "number": (TEXTS | {"rejected": 5}, " rejected: 5 (int) is not text."),
    "one turn": (TEXTS | {"chosen": SAYS}, "(dict) is not text. Write the text itself, or a list of turns: [{"),
    "empty answer": (TEXTS | {"chosen": ""}, " chosen: the text is empty. Remove the row or write the text."),
    "white answer": (TEXTS | {"rejected": " \n"}, " rejected: the text is empty."),
    "empty turns": (CHATS | {"chosen": []}, " chosen: the answer is empty."),
    "empty prompt": (TEXTS | {"prompt": ""}, " prompt: the text is empty."),
    "no turns": (CHATS | {"prompt": []}, " prompt: the conversation has no turns."),
    "equal": (TEXTS | {"rejected": " blue"}, ": chosen and rejected are the same. Remove the row."),
    "equal chats": ({"chosen": [ASK, SAYS], "rejected": [ASK, SAYS]}, ": chosen and rejected are the same."),
    "misspelt": ({"prompt": "a", "choosen": "b", "rejected": "c"}, "is missing or null. Did you mean 'choosen'?"),
    "other tool": ({"instruction": "a", "output": "b"}, "the row has no answer. It needs chosen and rejected,"),
    "lost question": (
        {"question": "a", "chosen": "the b", "rejected": "the c"},
        "there is no column 'prompt', but 'question'. Rename it to 'prompt'.",
    ),
    "lookalike": (TEXTS | {"Weights": 2}, "unknown column 'Weights'. Did you mean 'weight'?"),
    "lost prompt": ({"promt": "a", "chosen": "b", "rejected": "c"}, "unknown column 'promt'. Did you mean 'prompt'?"),
    "no prompt": ({"completion": "b", "label": True}, "column 'prompt' is missing or null."),
    "nothing shared": (
        {"chosen": "yes sir", "rejected": "no sir"},
        "do not begin with the same words. Add a column 'prompt'.",
    ),
    "two kinds": (TEXTS | {"completion": "x"}, "both chosen and completion are given: a pair or a labelled row?"),
    "role": (
        CHATS | {"prompt": [{"role": "human", "content": "a"}]},
        " prompt[0]: unknown role 'human'. Write 'user'.",
    ),
    "odd role": (CHATS | {"prompt": [{"role": "usr", "content": "a"}]}, "unknown role 'usr'. Did you mean 'user'?"),
    "sharegpt": (
        CHATS | {"prompt": [{"from": "human", "value": "a"}]},
        "the turn has no 'role'. Rename from/value to role/content.",
    ),
    "not a turn": (CHATS | {"prompt": ["hi"]}, " prompt[0]: 'hi' (str) is not a chat turn."),
    "image": (
        CHATS | {"prompt": [{"role": "user", "content": [{"type": "image"}]}]},
        "content holds image; only text can be trained on.",
    ),
    "images": (CHATS | {"images": ["x.png"]}, " images: images cannot be trained on. Remove the column."),
    "assistant last": (
        CHATS | {"prompt": [ASK, SAYS]},
        " prompt: the prompt ends with an assistant turn, so nothing asks for the answer. Move that turn to the",
    ),
    "system last": (CHATS | {"prompt": [{"role": "system", "content": "a"}]}, "the prompt ends with a system turn."),
    "user answers": (CHATS | {"chosen": [ASK, ASK]}, "the answer begins with a user turn."),
    "different prompts": (
        {"chosen": [ASK, SAYS], "rejected": [{"role": "user", "content": "Why?"}, WRONG]},
        "chosen and rejected have different prompts: they part ways at turn 1 (user).",
    ),
    "different questions later": (
        {"chosen": [ASK, SAYS, ASK, SAYS], "rejected": [ASK, SAYS, {"role": "user", "content": "Why?"}, WRONG]},
        "they part ways at turn 3 (user).",
    ),
    "one begins the other": (
        {"chosen": [ASK, SAYS], "rejected": [ASK, SAYS, ASK, WRONG]},
        " chosen: the answer is empty: the other conversation begins with all of this one.",
    ),
    "text prompt, chat answer": (CHATS | {"prompt": "Hm?"}, "the prompt is plain text but chosen is a conversation."),
    "span outside": (
        TEXTS | {"chosen_spans": [{"start": 0, "end": 9}]},
        " chosen_spans[0]: end 9 is outside the answer",
    ),
    "span empty": (TEXTS | {"chosen_spans": [{"start": 2, "end": 2}]}, "start 2 and end 2 enclose no text."),
    "span floats": (TEXTS | {"chosen_spans": [{"start": 0.5, "end": 2}]}, "must be whole numbers of characters."),
    "span half": (TEXTS | {"chosen_spans": [{"start": 1}]}, "is not a span. It needs start and end."),
    "span score": (
        TEXTS | {"chosen_spans": [SPAN | {"score": NAN}]},
        " chosen_spans[0] score: NaN is not a finite number.",
    ),
    "span turns": (
        CHATS | {"chosen": [SAYS, {"role": "tool", "content": "x"}, SAYS], "chosen_spans": [SPAN]},
        "spans need an answer that is one plain text.",
    ),
    "span implicit": (
        {"chosen": "a b", "rejected": "a c", "chosen_spans": [SPAN]},
        "spans need an explicit prompt to count from.",
    ),
    "weight 0": (TEXTS | {"weight": 0}, " weight: 0 is not above zero."),
    "weight NaN": (TEXTS | {"weight": NAN}, " weight: NaN is not a finite number."),
    "weight true": (TEXTS | {"weight": True}, " weight: True (bool) is not a finite number."),
    "margin inf": (TEXTS | {"margin": float("inf")}, " margin: inf (float) is not a finite number."),
    "label 1": ({"prompt": "a", "completion": "b", "label": 1}, " label: 1 (int) is not a label. Write true or false."),
    "steps": ({"prompt": "a", "completions": ["b"], "labels": [True, False]}, "two lists of the same length"),
    "step label": ({"prompt": "a", "completions": ["b"], "labels": ["yes"]}, " labels[0]: 'yes' (str) is not a label."),
    "messages": ({"messages": [ASK]}, " messages: the conversation must be a prompt and then the assistant's turn."),
    "tools on text": (TEXTS | {"tools": [{"name": "a"}]}, "a plain-text prompt goes through no chat template."),
    "tools broken": (CHATS | {"tools": "[{"}, " tools: broken JSON: "),
    "reserved option": (CHATS | {"chat_template_kwargs": {"tokenize": False}}, "'tokenize' is not for a row to say."),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_told_in_a_sentence(name: str) -> None:
    row, sentence = BAD[name]
    with pytest.raises(DataError) as caught:
        read(row)
    message = str(caught.value)
    assert message.startswith("a.jsonl:3")
    assert sentence in message
    assert "\n" not in message
    assert message.endswith((".", "?"))


def test_kinds_do_not_mix() -> None:
    pair, labelled = read(TEXTS), record({"prompt": "a", "completion": "b"}, where="a.jsonl:9", id="a:9")
    same_kind([pair, pair])
    same_kind([labelled])
    with pytest.raises(DataError, match=r"^a.jsonl: pairs and .*: a.jsonl:3 is a pair, a.jsonl:9 is labelled\. Put"):
        same_kind([pair, labelled], where="a.jsonl")
