"""A base model from nothing."""

from __future__ import annotations

from pathlib import Path

from citepipe.data.example import Document, Example
from citepipe.data.files import read_jsonl, write_examples
from citepipe.models.load import load_base, load_tokenizer
from citepipe.options.model import ModelOptions
from citepipe.options.prompt import PromptOptions
from citepipe.options.scratch import ScratchOptions
from citepipe.train.scratch import run, train_tokenizer


def test_any_text_goes_through_the_tokenizer_unchanged() -> None:
    tokenizer = train_tokenizer(["plain words only"] * 3, 300, 128)
    text = "  Zürich, 東京 🚲\n\ttabs «quotes» [1][2]."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_model_learns_and_loads_like_any_other(tmp_path: Path) -> None:
    docs = (Document("Silver River", "Silver River was directed by Anna Berg."),)
    path = tmp_path / "texts.json"
    write_examples(
        path,
        [Example(str(i), "eli5", "Who directed it?", docs, answer="Anna Berg.") for i in range(8)],
    )
    run(
        texts=[path],
        prompt=PromptOptions(instruction="Say."),
        options=ScratchOptions(
            texts=[str(path)],
            vocabulary=320,
            layers=1,
            hidden=16,
            heads=2,
            context=64,
            steps=30,
            batch_tokens=256,
            learning_rate=1e-2,
        ),
        out=tmp_path / "base",
        threads=1,
    )
    losses = [record["loss"] for record in read_jsonl(tmp_path / "base" / "metrics.jsonl")]
    assert losses[-1] < 0.7 * losses[0]
    options = ModelOptions(base=str(tmp_path / "base"), dtype="float32")
    assert load_base(options).config.num_hidden_layers == 1
    assert load_tokenizer(options).eos_token == "<|end|>"
