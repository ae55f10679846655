"""Supervised fine-tuning on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from citepipe.data.files import read_examples, read_jsonl, write_examples
from citepipe.errors import InputError
from citepipe.models.load import load_tokenizer
from citepipe.options.model import ModelOptions
from citepipe.options.prompt import PromptOptions
from citepipe.options.sft import SFTOptions
from citepipe.train import sft


def test_only_the_answer_and_the_end_of_sequence_have_loss(
    options: ModelOptions, prompt: PromptOptions, files: dict[str, Path]
) -> None:
    tokenizer = load_tokenizer(options)
    row = sft.encode_examples(read_examples(files["train"])[:1], prompt, tokenizer, 200)[0]
    learnt = [label for label in row["labels"] if label != sft.IGNORED]
    assert tokenizer.decode(learnt[:-1]) == " Silver River was directed by Anna Berg in 1995 [1]."
    assert learnt[-1] == tokenizer.eos_token_id
    asked = row["input_ids"][: len(row["labels"]) - len(learnt)]
    assert tokenizer.decode(asked).endswith("\nAnswer:")


def test_an_answer_over_the_limit_is_cut_without_an_end(
    options: ModelOptions, prompt: PromptOptions, files: dict[str, Path]
) -> None:
    tokenizer = load_tokenizer(options)
    row = sft.encode_examples(read_examples(files["train"])[:1], prompt, tokenizer, 3)[0]
    learnt = [label for label in row["labels"] if label != sft.IGNORED]
    assert len(learnt) == 3
    assert tokenizer.eos_token_id not in learnt


def test_rows_are_padded_on_the_right() -> None:
    rows = [
        {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]},
        {"input_ids": [4], "labels": [4]},
    ]
    batch = sft.collate(rows, pad_id=9)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [4, -100, -100]]


def test_training_lowers_the_dev_loss_and_leaves_an_adapter(adapter: Path) -> None:
    losses = [r["eval_loss"] for r in read_jsonl(adapter / "metrics.jsonl") if "eval_loss" in r]
    assert losses[-1] < losses[0]
    assert (adapter / "adapter_model.safetensors").is_file()
    assert (adapter / "tokenizer.json").is_file()
    assert not adapter.with_name("state").exists(), "a finished run leaves no state"


def test_rows_without_answers_are_one_clear_line(
    tmp_path: Path, options: ModelOptions, prompt: PromptOptions, files: dict[str, Path]
) -> None:
    from dataclasses import replace

    empty = tmp_path / "empty.json"
    write_examples(empty, [replace(e, output=None) for e in read_examples(files["dev"])])
    with pytest.raises(InputError, match=r"empty\.json: expected rows with an answer"):
        sft.run(
            train=empty,
            dev=files["dev"],
            model=options,
            prompt=prompt,
            options=SFTOptions(),
            start=None,
            out=tmp_path / "out",
            state=tmp_path / "state",
            fingerprint="a",
            seed=0,
            threads=1,
        )
    assert not (tmp_path / "out").exists()
