"""Record -> Example: the tokens a model sees at inference, and which characters each answer token stands for.

* The prompt's ids are exactly what ``apply_chat_template(prompt, add_generation_prompt=True)`` gives; a plain-text
  prompt gets what the tokenizer adds before a text by default (BOS or nothing), once.
* The answer's ids are those of the natural tokenisation of prompt + answer, where that begins with the prompt's ids.
  Where the text would merge over the boundary the answer is tokenised alone: at inference too the prompt is fixed
  before the answer begins. Such answers are counted as ``boundary_merges``.
* An answer ends with the end-of-turn token, the first special token at or after the end of its words; what a template
  writes after it is never generated and is dropped. Plain-text answers, and templates that end a turn with no special
  token, get the tokenizer's EOS.
* Rows longer than ``max_length`` are shortened by the rule of :mod:`grainline.data.shorten`, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from grainline.data import shorten, template
from grainline.data.template import Rendered, Suffix
from grainline.data.vocabulary import added_before, special_tokens
from grainline.errors import DataError
from grainline.types import Answer, AnswerTokens, Example, Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COUNTS = ("rows", "truncated_prompts", "turns_dropped", "truncated_answers", "boundary_merges", "control_tokens")
_CHUNK = 256  # records tokenised in one call: enough to be fast, few enough that progress is seen


_Key = tuple[str, bool]  # a prompt, and whether a template wrote it


class _Tokens(NamedTuple):
    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]]  # characters of the text


class _Prompt(NamedTuple):
    ids: tuple[int, ...]
    tail: str  # the text from its last special token on: nothing before that can touch the answer's tokens
    tail_ids: list[int]


class _Draft(NamedTuple):
    """A record in tokens, of whatever length."""

    prompt: tuple[int, ...]
    answers: tuple[AnswerTokens, ...]
    merges: int  # answers whose first character would merge into the prompt's last token
    control: int  # special tokens that stand in the answers' own words
    found: tuple[bool, ...]  # whether each answer's words could be placed in what the template wrote

    @property
    def longest(self) -> int:
        return max(len(answer.ids) for answer in self.answers)


class Encoder:
    """Tokenises records for one tokenizer and one ``max_length`` (prompt + longest answer).

    ``counts`` says what was done: rows encoded; prompts shortened and chat turns dropped for it; answers cut; answers
    that would have merged with their prompt; special tokens written out in the answers' own words.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> None:
        if max_length < 2:
            raise DataError(f"max_length {max_length} leaves no room for a prompt and an answer.")
        self.tokenizer, self.max_length = tokenizer, max_length
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        self._before = added_before(tokenizer)
        self._specials = special_tokens(tokenizer)
        self._eos = int(tokenizer.eos_token_id)

    def __call__(self, record: Record) -> Example:
        """One record in tokens, or a DataError."""
        examples, problems = self.encode_all([record])
        if problems:
            raise problems[0]
        return examples[0]

    def encode_all(
        self, records: Sequence[Record], progress: Callable[[int], object] | None = None
    ) -> tuple[list[Example], list[DataError]]:
        """All records in tokens, and a DataError for each that cannot be; ``progress`` hears of each batch of rows."""
        examples: list[Example] = []
        problems: list[DataError] = []
        known: dict[_Key, _Prompt] = {}
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            for record, draft in self._drafts(chunk, known):
                try:
                    if isinstance(draft, DataError):
                        raise draft
                    examples.append(self._example(record, draft))
                except DataError as problem:
                    problems.append(problem)
            if progress:
                progress(len(chunk))
        return examples, problems

    def _drafts(
        self, records: Iterable[Record], known: dict[_Key, _Prompt]
    ) -> Iterable[tuple[Record, _Draft | DataError]]:
        """Each record with its tokens or why there are none: all are rendered, then all tokenised in two calls."""
        texts: list[tuple[Record, Rendered | DataError]] = []
        for record in records:
            try:
                texts.append((record, template.render(self.tokenizer, record, self._specials.values())))
            except DataError as problem:
                texts.append((record, problem))
        rendered = [text for _, text in texts if isinstance(text, Rendered)]
        self._learn(rendered, known)
        # Identical prompts and answers recur (four answers make six pairs), so each whole text is tokenised once.
        wholes = list(dict.fromkeys(known[_key(r)].tail + s.text for r in rendered for s in r.answers))
        tokens = dict(zip(wholes, self._tokenise(wholes), strict=True))
        for record, text in texts:
            yield record, text if isinstance(text, DataError) else self._draft(record, text, known[_key(text)], tokens)

    def _learn(self, rendered: Sequence[Rendered], known: dict[_Key, _Prompt]) -> None:
        """Tokenise the prompts that are new."""
        new = list(dict.fromkeys(_key(text) for text in rendered if _key(text) not in known))
        for (prompt, chat), tokens in zip(new, self._tokenise([prompt for prompt, _ in new]), strict=True):
            last = max((n for n, id in enumerate(tokens.ids) if id in self._specials), default=0) if chat else 0
            start = tokens.offsets[last][0] if last else 0
            ids = tuple(tokens.ids) if chat else (*self._before, *tokens.ids)
            known[prompt, chat] = _Prompt(ids, prompt[start:], list(tokens.ids[last:]))

    def _tokenise(self, texts: list[str]) -> list[_Tokens]:
        if not texts:
            return []
        found = self.tokenizer(
            texts,
            add_special_tokens=False,  # a template writes its own; a plain prompt gets them in _learn
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [_Tokens(*pair) for pair in zip(found["input_ids"], found["offset_mapping"], strict=True)]

    def _draft(self, record: Record, text: Rendered, prompt: _Prompt, tokens: Mapping[str, _Tokens]) -> _Draft:
        answers, merges, control = [], 0, 0
        for answer, suffix in zip(record.answers, text.answers, strict=True):
            ids, offsets = tokens[prompt.tail + suffix.text]
            size, shift = len(prompt.tail_ids), len(prompt.tail)
            if list(ids[:size]) == prompt.tail_ids:
                after = _Tokens(ids[size:], [(max(a - shift, 0), max(b - shift, 0)) for a, b in offsets[size:]])
            else:
                after = self._tokenise([suffix.text])[0]
                merges += 1
            after = self._ended(after, suffix)
            inside = zip(after.ids[:-1], after.offsets, strict=False)
            control += sum(id in self._specials and b <= suffix.stop for id, (_, b) in inside) if suffix.found else 0
            answers.append(
                AnswerTokens(tuple(after.ids), _characters(after, suffix, answer), weight=(1.0,) * len(after.ids))
            )
        return _Draft(prompt.ids, tuple(answers), merges, control, tuple(s.found for s in text.answers))

    def _ended(self, tokens: _Tokens, suffix: Suffix) -> _Tokens:
        """The tokens up to the end of the turn."""
        special = [n for n, id in enumerate(tokens.ids) if id in self._specials]
        if suffix.found:
            end = next((n for n in special if tokens.offsets[n][1] > suffix.stop), None)
        else:  # the last special token, if nothing is said after it
            end = special[-1] if special and not suffix.text[tokens.offsets[special[-1]][1] :].strip() else None
        if end is not None:
            return _Tokens(tokens.ids[: end + 1], tokens.offsets[: end + 1])
        said = max(suffix.stop, len(suffix.text.rstrip()))
        count = sum(start < said for start, _ in tokens.offsets)
        ids, offsets = list(tokens.ids[:count]), list(tokens.offsets[:count])
        if ids and ids[-1] == self._eos:
            return _Tokens(ids, offsets)
        return _Tokens([*ids, self._eos], [*offsets, (said, said)])

    def _example(self, record: Record, draft: _Draft) -> Example:
        """The draft within ``max_length`` and checked for what would train on nothing."""
        where = record.where or record.id
        bos = self.tokenizer.bos_token_id
        if bos is not None and draft.prompt[:2] == (bos, bos):
            raise DataError(
                f"the prompt begins with {self.tokenizer.bos_token!r} twice.",
                where=where,
                instead="The text or the chat template writes it, and the tokenizer adds it again: remove one.",
            )
        short, dropped = self._shortened(record, draft)
        space = self.max_length - len(short.prompt)
        if space < 1:
            raise DataError(f"the shortest prompt takes {len(short.prompt)} of {self.max_length} tokens.", where=where)
        answers = tuple(_first(answer, space) for answer in short.answers)
        if not short.prompt:
            raise DataError("the prompt has no token.", where=where)
        for name, tokens, found in zip(("chosen", "rejected"), answers, short.found, strict=False):
            if not any(a < b for a, b in tokens.offsets) if found else all(id in self._specials for id in tokens.ids):
                name = name if record.is_pair else "completion"
                raise DataError("no token of the answer is left to train on.", where=f"{where} {name}")
        cut = sum(len(old.ids) > space for old in short.answers)
        if record.is_pair and answers[0].ids == answers[1].ids:
            raise DataError(
                f"chosen and rejected are the same tokens{f' once cut to {self.max_length}' if cut else ''}.",
                where=where,
                instead="Raise max_length or remove the row." if cut else "Remove the row.",
            )
        self.counts.update(
            rows=1,
            truncated_prompts=int(short.prompt != draft.prompt),
            turns_dropped=dropped,
            truncated_answers=cut,
            boundary_merges=short.merges,
            control_tokens=short.control,
        )
        return Example(record, short.prompt, answers)

    def _shortened(self, record: Record, draft: _Draft) -> tuple[_Draft, int]:
        """The draft with a prompt that leaves room for the answers, as far as may be, and how many turns that cost."""
        if len(draft.prompt) + draft.longest <= self.max_length:
            return draft, 0
        room = shorten.room(max_length=self.max_length, longest=draft.longest)
        if len(draft.prompt) <= room:
            return draft, 0
        if isinstance(record.prompt, str):
            keep = max(room - len(self._before), 1)
            return draft._replace(prompt=(*self._before, *draft.prompt[len(self._before) :][-keep:])), 0
        turns = record.prompt
        for turns in shorten.without_oldest(record.prompt):
            draft = self._again(record, turns)
            if len(draft.prompt) <= room:
                return draft, len(record.prompt) - len(turns)
        dropped = len(record.prompt) - len(turns)
        while len(draft.prompt) > room:
            less = self._behead(record, turns, excess=len(draft.prompt) - room)
            if less is None:
                break
            turns, draft = less, self._again(record, less)
        return draft, dropped

    def _again(self, record: Record, turns: Sequence[Mapping[str, object]]) -> _Draft:
        [(_, draft)] = self._drafts([record._replace(prompt=tuple(turns))], {})
        if isinstance(draft, DataError):
            raise draft
        return draft

    def _behead(
        self, record: Record, turns: tuple[Mapping[str, object], ...], *, excess: int
    ) -> tuple[Mapping[str, object], ...] | None:
        """The turns without the first ``excess`` tokens of the last user's words, of which one token always stays."""
        at = shorten.last_user(turns)
        if at is None:
            return None
        content = str(turns[at]["content"])
        text = template.conversation(self.tokenizer, record, turns, speak=True)
        start = text.rfind(content.strip())
        if start < 0:
            return None
        stop, lead = start + len(content.strip()), content.index(content.strip())
        tokens = self._tokenise([text])[0]
        inside = sorted({a for a, b in tokens.offsets if start < a and b <= stop and a < b})
        if not inside:
            return None
        return shorten.beheaded(turns, at, inside[min(excess, len(inside)) - 1] - start + lead)


def _key(text: Rendered) -> _Key:
    return text.prompt, text.chat


def _characters(tokens: _Tokens, suffix: Suffix, answer: Answer) -> tuple[tuple[int, int], ...]:
    """Characters of ``Answer.text`` under each token; empty, at the nearest end, where the template speaks."""
    if not suffix.found:
        return ((0, 0),) * len(tokens.ids)
    shift = suffix.lead - suffix.start
    clip = [(min(max(a, suffix.start), suffix.stop), min(max(b, suffix.start), suffix.stop)) for a, b in tokens.offsets]
    return tuple((a + shift, b + shift) for a, b in clip)


def _first(answer: AnswerTokens, count: int) -> AnswerTokens:
    """The first ``count`` tokens of an answer."""
    if len(answer.ids) <= count:
        return answer
    return answer._replace(ids=answer.ids[:count], offsets=answer.offsets[:count], weight=answer.weight[:count])
