"""A small base model made from nothing: a BPE tokenizer and a Llama, trained on given texts.

For runs where no pretrained model is at hand. It learns what the texts look like and little more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_jsonl
from citepipe.data.prompts import render
from citepipe.models.load import device
from citepipe.models.save import partial_directory, publish
from citepipe.options.prompt import PromptOptions
from citepipe.options.scratch import ScratchOptions
from citepipe.progress import Progress, summary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END, PAD = "<|end|>", "<|pad|>"


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
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(options.seed)
    examples = [example for path in texts for example in read_examples(path)]
    documents = [_text(example, prompt) for example in examples]
    tokenizer = train_tokenizer(documents, options.vocabulary, options.context)
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
    partial = partial_directory(out)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    write_jsonl(partial / "metrics.jsonl", metrics)
    publish(partial, out)
    return summary(
        "scratch",
        {
            "texts": len(documents),
            "tokens": len(stream),
            "parameters": sum(p.numel() for p in model.parameters()),
            "last loss": metrics[-1]["loss"],
        },
    )


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
