"""What the base model reads, and its tokenizer: no answer in it cites anything.

Four kinds of sequence. The drills teach copying and indexing on random words, which have no
meaning: a chunk is repeated and followed by the number it stood under. The world's questions are
answered, and its documents restated, without citations. So the model learns where a text came
from, and what answers a question, but not to cite; citing is what the teacher adds.

Each sequence comes with a loss weight per token: 0 for what nobody could predict (which chunk is
repeated next), 1 for answers, and less for prompts.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from citepipe.data.prompts import render
from citepipe.miniature.language import words
from citepipe.miniature.world import TRAINED, Artist, Drawn
from citepipe.options import PromptOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"
ANSWER_SHARE, FACT_SHARE, PROMPT_WEIGHT = 0.65, 0.1, 0.03
CUES = ("Question:", "Answer:", "Facts:")
CITATIONS = tuple(f"[{number}]" for number in range(1, 6))


def pieces() -> list[str]:
    """All texts that are one token, bytes apart; words and citations with the space in front."""
    spaced = [f" {word}" for word in (*CITATIONS, *words())]
    return [".", ",", ":", "?", "\n", " ", *CUES, *CITATIONS, *spaced]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer that gives back any text exactly: the fewest pieces, and bytes elsewhere."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    unknown = "<unk>"
    special = [PAD, EOS, unknown]
    spelled = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = [(token, 0.0) for token in special]
    vocabulary += [(piece, -1.0) for piece in pieces()]
    vocabulary += [(piece, -20.0) for piece in spelled]
    tokenizer = Tokenizer(
        models.Unigram(vocabulary, unk_id=special.index(unknown), byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=unknown,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


class Reading(NamedTuple):
    """Token ids and, of the same length, the loss weight of predicting each."""

    ids: list[int]
    weights: list[float]


class Corpus:
    """An endless supply of sequences, the same for the same seed, with the prompt of the stages
    that follow."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompt: PromptOptions, seed: int
    ) -> None:
        self.tokenizer, self.prompt = tokenizer, prompt
        self.random = random.Random(f"{seed} corpus")
        self._artist = Artist("train", f"{seed} questions")
        token = tokenizer.get_vocab()
        self._words = [token[f" {word}"] for word in words()]
        self._numbers = [token[f" {mark}"] for mark in CITATIONS]
        self._period, self._comma, self._colon = token["."], token[","], token[":"]
        self._newline, self._cue, self._eos = token["\n"], token["Facts:"], token[EOS]

    def mixed(self) -> Reading:
        """An uncited answer, uncited facts, or a drill."""
        draw = self.random.random()
        if draw < ANSWER_SHARE:
            return self.answer()
        if draw < ANSWER_SHARE + FACT_SHARE:
            return self.facts()
        return self.document_drill()

    def answer(self) -> Reading:
        """A question of the world with its correct answer, uncited."""
        drawn = self._question()
        return self._text(render(drawn.example, self.prompt), drawn.answer())

    def facts(self) -> Reading:
        """Three documents of two questions, restated one after the other, uncited."""
        pages = [*self._question().example.docs, *self._question().example.docs]
        docs = self.random.sample(pages, 3)
        prompt = "".join(
            self.prompt.doc_prompt.replace("{ID}", str(number))
            .replace("{T}", doc.title)
            .replace("{P}", doc.text)
            for number, doc in enumerate(docs, start=1)
        )
        return self._text(f"{prompt}Facts:", " ".join(doc.text for doc in docs))

    def _question(self) -> Drawn:
        return self._artist.draw(self._artist.random.choice(TRAINED))

    def abstract_drill(self) -> Reading:
        """Numbered chunks of random words, then the chunks in another order with their numbers."""
        chunks = [self._random_words(2, 5) for _ in CITATIONS]
        out = Reading([], [])
        for number, chunk in zip(self._numbers, chunks, strict=True):
            _extend(out, [number, *chunk, self._period], 0.0)
        _extend(out, [self._cue], 0.0)
        order = self.random.sample(range(len(chunks)), len(chunks))
        for place in order:
            _extend(out, chunks[place][:1], 0.0)
            _extend(out, [*chunks[place][1:], self._numbers[place], self._period], 1.0)
        _extend(out, [self._eos], 1.0)
        return out

    def document_drill(self) -> Reading:
        """Random words laid out as documents; then a list of titles, or quotes, with numbers."""
        listing = self.random.random() < 0.35
        titles = [self._random_words(2, 2) for _ in CITATIONS]
        if not listing:
            # Several documents share a title, or a word of it, as in the world.
            for place in range(1, len(titles)):
                draw = self.random.random()
                if draw < 0.5:
                    titles[place] = list(titles[0])
                elif draw < 0.8:
                    titles[place][self.random.randrange(2)] = self.random.choice(titles[0])
        texts = [self._random_words(4, 8) for _ in CITATIONS]
        out = Reading([], [])
        for number, title, text in zip(self._numbers, titles, texts, strict=True):
            line = [number, *title, self._colon, *text, self._period, self._newline]
            _extend(out, line, 0.0)
        _extend(out, [self._cue], 0.0)
        chosen = self.random.sample(range(len(titles)), self.random.choice((2, 3, 4)))
        style = self.random.choice(("title first", "text first", "text alone"))
        for count, place in enumerate(chosen, start=1):
            if listing:
                _extend(out, titles[place][:1], 0.0)
                _extend(out, [titles[place][1], self._numbers[place]], 1.0)
                last = count == len(chosen)
                _extend(out, [self._period if last else self._comma], 0.0)
            else:
                for part in self._quote(style, titles[place], texts[place]):
                    _extend(out, part[:1], 0.0)
                    _extend(out, part[1:], 1.0)
                _extend(out, [self._numbers[place], self._period], 1.0)
        return out

    def _quote(self, style: str, title: list[int], text: list[int]) -> list[list[int]]:
        """Part of a document: its title within or before its text, or the end of its text."""
        if style == "text first":
            cut = self.random.randint(1, len(text) - 2)
            return [text[:cut], title, text[cut:]]
        end = text[self.random.randrange(len(text) - 2) :]
        return [title, end] if style == "title first" else [end]

    def _text(self, prompt: str, answer: str) -> Reading:
        asked = self.tokenizer(prompt)["input_ids"]
        answered = [*self.tokenizer(f" {answer}")["input_ids"], self._eos]
        out = Reading([], [])
        _extend(out, asked, PROMPT_WEIGHT)
        _extend(out, answered, 1.0)
        return out

    def _random_words(self, least: int, most: int) -> list[int]:
        return self.random.choices(self._words, k=self.random.randint(least, most))


def _extend(sequence: Reading, ids: list[int], weight: float) -> None:
    sequence.ids.extend(ids)
    sequence.weights.extend([weight] * len(ids))
