"""A base model from nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.files import read_jsonl, write_examples
from citepipe.errors import InputError
from citepipe.models.load import load_base, load_tokenizer
from citepipe.options import ModelOptions, PromptOptions, ScratchOptions
from citepipe.train.scratch import Quotes, run, train_tokenizer


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


QUOTED = [
    Example(
        str(number),
        "eli5",
        f"Who lives in house {number}?",
        tuple(
            Document(f"House {number}{k}", f"Anna {k} lives in house {number}. She has a dog. Bye.")
            for k in "ab"
        ),
        answer=None if number else "Nobody lives there.",
    )
    for number in range(4)
]


def test_quotes_are_sentences_of_the_documents_in_their_prompts() -> None:
    texts = [doc.text for example in QUOTED for doc in example.docs]
    tokenizer = train_tokenizer([*texts, "Document Answer: Nobody there."], 320, 512)
    prompt = PromptOptions(instruction="Say.", max_input_tokens=300)
    quotes = Quotes(QUOTED, prompt, tokenizer, seed=0)
    seen = set()
    for _ in range(60):
        ids, weights = quotes.read()
        assert len(ids) == len(weights)
        start = weights.index(1.0)
        assert set(weights[start:]) == {1.0}
        asked, answer = tokenizer.decode(ids[:start]), tokenizer.decode(ids[start:-1])
        assert ids[-1] == tokenizer.eos_token_id
        assert asked.endswith("\nAnswer:")
        if answer != " Nobody lives there.":
            assert f"{answer.strip()} She" in asked
        seen.add(answer)
    assert " Nobody lives there." in seen
    assert len(seen) == 9
    again = Quotes(QUOTED, prompt, tokenizer, seed=0)
    assert again.read() == Quotes(QUOTED, prompt, tokenizer, seed=0).read()


def test_a_drill_repeats_a_part_of_itself() -> None:
    tokenizer = train_tokenizer(["a b c"], 320, 512)
    quotes = Quotes(QUOTED, PromptOptions(), tokenizer, seed=0)
    for _ in range(20):
        ids, weights = quotes.drill()
        known = weights.index(1.0) - 1
        words, repeated = ids[:known], ids[known:]
        assert any(words[i : i + len(repeated)] == repeated for i in range(known))


def test_a_model_that_copies_is_trained_and_loads(tmp_path: Path) -> None:
    write_examples(tmp_path / "rows.json", QUOTED)
    options = ScratchOptions(
        texts=[], vocabulary=320, layers=2, hidden=16, heads=2, context=256, steps=2,
        batch_tokens=512, copying=True, drill_steps=2,
    )  # fmt: skip
    prompt = PromptOptions(instruction="Say.", max_input_tokens=200)
    said = run([tmp_path / "rows.json"], prompt, options, tmp_path / "base", threads=1)
    assert said.startswith("scratch: texts 4, tokens ")
    assert [row["step"] for row in read_jsonl(tmp_path / "base" / "metrics.jsonl")] == [1, 2, 3, 4]
    model = ModelOptions(base=str(tmp_path / "base"), dtype="float32")
    assert load_base(model).config.attention_bias
    odd = options.model_copy(update={"hidden": 18})
    with pytest.raises(InputError, match=r"scratch\.copying: expected at least 2 layers"):
        run([tmp_path / "rows.json"], prompt, odd, tmp_path / "odd", threads=1)
