"""The miniature's base model: a tiny Llama, pretrained in minutes without any cited answer."""

from __future__ import annotations

from pathlib import Path

from citepipe.miniature.copying import build_model, build_optimizers, learn, learning_rate_share
from citepipe.miniature.corpus import Corpus
from citepipe.miniature.tokenizer import build_tokenizer
from citepipe.models.save import partial_directory, publish
from citepipe.options import MiniatureOptions
from citepipe.progress import Progress, summary


def pretrain(options: MiniatureOptions, out: Path) -> str:
    """Make the base model and its tokenizer; the directory `out` appears when all is done.

    It reads questions about training names, drawn afresh. The same options give the same model on
    the same machine: one thread, whatever the machine has, so that sums have one order.

    Args:
        options: size, mixture, training, prompt and seed.
        out: the directory to make (replaced if it is there).

    Returns:
        A line that says what was done.
    """
    import torch
    from transformers import set_seed

    torch.set_num_threads(1)
    set_seed(options.seed)
    settings = options.base
    tokenizer = build_tokenizer()
    reader = Corpus(tokenizer, options.prompt, settings, options.seed)
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    model = build_model(settings, len(tokenizer), pad, eos).train()
    optimizers = build_optimizers(
        model, settings.matrix_learning_rate, settings.learning_rate, settings.momentum
    )
    total = settings.drill_steps + settings.steps
    progress = Progress("base", total, "steps")
    tokens = 0
    figures: dict[str, float] = {}
    for step in range(total):
        share = learning_rate_share(
            step,
            total,
            settings.warmup_steps,
            settings.constant_share,
            settings.final_share,
        )
        read = reader.abstract_drill if step < settings.drill_steps else reader.mixed
        readings = [read() for _ in range(settings.batch_size)]
        loss, accuracy = learn(model, optimizers, readings, pad, share, settings.clip_norm)
        tokens += len(readings) * max(len(reading.ids) for reading in readings)
        news = {"loss": loss, "accuracy": accuracy}
        figures = {name: 0.95 * figures.get(name, new) + 0.05 * new for name, new in news.items()}
        progress.advance(1, **figures, tokens_per_s=tokens / progress.elapsed)
    partial = partial_directory(out)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    publish(partial, out)
    parameters = sum(p.numel() for p in model.parameters())
    return summary("base", {"parameters": parameters, "steps": total, "tokens": tokens, **figures})
