"""A small base model made from nothing: a BPE tokenizer and a Llama, trained on given texts.

For runs where no pretrained model is at hand. It learns what the texts look like and little more,
or to quote them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from citepipe.data.example import Document, Example
from citepipe.data.files import read_examples, write_jsonl
from citepipe.data.prompts import fit, render
from citepipe.errors import InputError
from citepipe.models.load import device
from citepipe.models.save import partial_directory, publish
from citepipe.options import PromptOptions, ScratchOptions
from citepipe.progress import Progress, summary
from citepipe.text.sentences import load_splitter
from citepipe.train.copying import (
    Reading,
    build_model,
    build_optimizers,
    learn,
    learning_rate_share,
)

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

END, PAD = "<|end|>", "<|pad|>"

MATRIX_LEARNING_RATE = 0.02
"""Muon's, for a start that can copy."""

DRILLS_PER_ROW = 5
"""Drills are that much shorter than prompts."""

HUMAN_SHARE = 0.3
PROMPT_WEIGHT = 0.03
WORDS_SHOWN = (40, 60, 90, 200)
"""Words of each document in a prompt, at most."""


def train_tokenizer(texts: Sequence[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text goes in and comes out unchanged."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def run(
    texts: Sequence[Path], prompt: PromptOptions, options: ScratchOptions, out: Path, threads: int
) -> str:
    """Train tokenizer and model on prompts with their uncited human answers; write them to `out`.

    Args:
        texts: files of examples.
        prompt: how a question and its documents are laid out.
        options: sizes and steps.
        out: the model's directory, with `metrics.jsonl`.
        threads: CPU threads.

    Returns:
        A line that says what was done.

    Raises:
        InputError: a file is bad, or sizes do not go together.
    """
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(options.seed)
    read = [example for path in texts for example in read_examples(path, needs_documents=False)]
    examples = [example for example in read if example.docs]
    if not examples:
        raise InputError(f"{', '.join(map(str, texts))}: expected rows with documents, got none")
    documents = [_text(example, prompt) for example in examples]
    tokenizer = train_tokenizer(documents, options.vocabulary, options.context)
    if options.copying:
        model, metrics, tokens = _copying(examples, prompt, options, tokenizer)
    else:
        model, metrics, tokens = _reading(documents, options, tokenizer)
    partial = partial_directory(out)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    write_jsonl(partial / "metrics.jsonl", metrics)
    publish(partial, out)
    return summary(
        "scratch",
        {
            "texts": len(documents),
            "tokens": tokens,
            "parameters": sum(p.numel() for p in model.parameters()),
            **{f"last {name}": value for name, value in metrics[-1].items() if name != "step"},
        },
    )


def _reading(
    documents: Sequence[str], options: ScratchOptions, tokenizer: PreTrainedTokenizerFast
) -> tuple[LlamaForCausalLM, list[dict[str, float]], int]:
    """A model of running text; with its figures by step, and the number of tokens there are."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    eos = tokenizer.eos_token_id
    assert isinstance(eos, int)
    stream = [i for text in documents for i in [*tokenizer(text)["input_ids"], eos]]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=options.hidden,
            intermediate_size=3 * options.hidden,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            max_position_embeddings=options.context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=eos,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.to(device())  # type: ignore[arg-type]  # transformers wraps the method
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=options.steps, pct_start=0.1
    )
    progress = Progress("scratch", options.steps, "steps")
    metrics = []
    for step, batch in zip(range(options.steps), _batches(stream, options), strict=False):
        ids = torch.tensor(batch, device=model.device)
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        metrics.append({"step": step + 1, "loss": float(loss.detach())})
        progress.advance(1, loss=metrics[-1]["loss"])
    return model, metrics, len(stream)


def _copying(
    examples: Sequence[Example],
    prompt: PromptOptions,
    options: ScratchOptions,
    tokenizer: PreTrainedTokenizerFast,
) -> tuple[LlamaForCausalLM, list[dict[str, float]], int]:
    """A model that quotes; with its figures by step, and the number of tokens that it has read."""
    if options.heads < 2 or options.layers < 2 or options.hidden % (2 * options.heads):
        raise InputError(
            "scratch.copying: expected at least 2 layers and 2 heads, and a hidden width that is a "
            "multiple of twice the heads"
        )
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    assert isinstance(pad, int)
    assert isinstance(eos, int)
    model = build_model(
        len(tokenizer),
        pad,
        eos,
        layers=options.layers,
        width=options.hidden,
        heads=options.heads,
        feed_forward=2 * options.hidden,
        positions=options.context,
    )
    model.to(device())  # type: ignore[arg-type]  # transformers wraps the method
    model.train()
    quotes = Quotes(examples, prompt, tokenizer, options.seed)
    optimizers = build_optimizers(model, MATRIX_LEARNING_RATE, options.learning_rate)
    total = options.drill_steps + options.steps
    rows = max(1, options.batch_tokens // prompt.max_input_tokens)
    progress = Progress("scratch", total, "steps")
    metrics, tokens = [], 0
    for step in range(total):
        is_drill = step < options.drill_steps
        readings = [
            quotes.drill() if is_drill else quotes.read()
            for _ in range(DRILLS_PER_ROW * rows if is_drill else rows)
        ]
        share = learning_rate_share(step, total)
        loss, accuracy = learn(model, optimizers, readings, pad, share, clip_norm=1.0)
        tokens += sum(len(reading.ids) for reading in readings)
        metrics.append({"step": step + 1, "loss": loss, "accuracy": accuracy})
        progress.advance(1, loss=loss, accuracy=accuracy)
    return model, metrics, tokens


class Quotes:
    """An endless supply of prompts with answers, the same for the same seed.

    Of ten answers seven are a sentence of a document, asked for by some of its words (an inverse
    cloze task, Lee et al. 2019), and three the human answer to the real question, if there is one.

    Args:
        examples: with documents.
        prompt: how a question and its documents are laid out.
        tokenizer: of the model.
        seed: of all draws.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        prompt: PromptOptions,
        tokenizer: PreTrainedTokenizerFast,
        seed: int,
    ) -> None:
        self.examples, self.prompt, self.tokenizer = examples, prompt, tokenizer
        self.random = random.Random(f"{seed}/quotes")
        self.splitter = load_splitter("punkt-rules")

    def read(self) -> Reading:
        """A prompt with an answer; what stands in the prompt weighs little."""
        while True:
            example = self.random.choice(self.examples)
            if example.answer and self.random.random() < HUMAN_SHARE:
                fitted = fit(example, self.prompt, self._encode)
                return self._reading(list(fitted.token_ids), example.answer.replace("\n", " "))
            words = self.random.choice(WORDS_SHOWN)
            docs = [Document(d.title, " ".join(d.text.split()[:words])) for d in example.docs]
            text = self.random.choice(docs).text
            # The last one is cut off somewhere.
            sentences = [text[start:end] for start, end in self.splitter(text)][:-1]
            fitting = [s for s in sentences if 5 <= len(s.split()) <= 40]
            if not fitting:
                continue
            sentence = self.random.choice(fitting)
            asked = replace(example, question=self._question(sentence))
            ids = self._encode(render(asked, self.prompt, docs))
            if len(ids) <= self.prompt.max_input_tokens:
                return self._reading(ids, sentence)

    def drill(self) -> Reading:
        """Random words, and some of them again, in their order."""
        count = self.random.randrange(20, 60)
        size = len(self.tokenizer)
        words = [self.random.randrange(2, size) for _ in range(count)]
        start = self.random.randrange(count - 8)
        again = words[start : start + self.random.randrange(6, count - start)]
        # Which of them is repeated nobody could know.
        return Reading([*words, *again], [0.0] * (count + 1) + [1.0] * (len(again) - 1))

    def _question(self, sentence: str) -> str:
        words = sentence.split()
        if self.random.random() < 0.5:
            return " ".join(words[: self.random.randrange(3, 7)])
        return " ".join(self.random.sample(words, 4))

    def _reading(self, ids: list[int], answer: str) -> Reading:
        eos = self.tokenizer.eos_token_id
        assert isinstance(eos, int)
        answered = [*self._encode(f" {answer.strip()}"), eos]
        weights = [PROMPT_WEIGHT] * len(ids) + [1.0] * len(answered)
        return Reading([*ids, *answered], weights)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids


def _text(example: Example, prompt: PromptOptions) -> str:
    answer = example.answer or (example.long_answers[0] if example.long_answers else "")
    return f"{render(example, prompt)} {answer}".rstrip()


def _batches(stream: Sequence[int], options: ScratchOptions) -> Iterator[list[list[int]]]:
    """Windows of the running text, a few hundred tokens each, drawn at random without end."""
    width = min(options.context, 512, len(stream) - 1)
    rows = max(1, options.batch_tokens // width)
    draw = random.Random(f"{options.seed}/windows")
    while True:
        starts = [draw.randrange(len(stream) - width) for _ in range(rows)]
        yield [list(stream[start : start + width]) for start in starts]
