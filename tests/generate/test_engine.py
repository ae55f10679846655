"""The Hugging Face engine on a tiny model with random weights."""

from pathlib import Path

import pytest
import torch

from citepipe.errors import InputError
from citepipe.generate.completion import Request, Sampling
from citepipe.generate.engine import HuggingFaceGenerator, _choose
from citepipe.models.load import load_base, load_tokenizer
from citepipe.options.model import ModelOptions

PROMPTS = [
    "Question: Who directed Silver River?\nAnswer:",
    "Where?",
    "Document [1](Title: Silver River): directed by Anna Berg.\nAnswer:",
]


@pytest.fixture(scope="module")
def loaded(tiny_base: Path):  # type: ignore[no-untyped-def]
    options = ModelOptions(base=str(tiny_base), dtype="float32")
    return load_base(options), load_tokenizer(options)


def _requests(tokenizer, tokens: int = 12) -> list[Request]:  # type: ignore[no-untyped-def]
    return [
        Request(tuple(tokenizer(p)["input_ids"]), f"{p}/{i}", tokens)
        for p in PROMPTS
        for i in range(3)
    ]


def test_greedy_decoding_is_what_generate_gives(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    requests = [Request(tuple(tokenizer(p)["input_ids"]), p, 12) for p in PROMPTS]
    completions = HuggingFaceGenerator(model, tokenizer, 8).generate(requests, Sampling())
    for request, completion in zip(requests, completions, strict=True):
        expected = model.generate(
            torch.tensor([request.token_ids]), max_new_tokens=12, do_sample=False
        )[0, len(request.token_ids) :].tolist()
        # The engine also stops at a newline, where generate goes on.
        assert list(completion.token_ids) == expected[: len(completion.token_ids)]


def test_log_probabilities_are_those_of_a_plain_forward_pass(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    requests = _requests(tokenizer)
    completions = HuggingFaceGenerator(model, tokenizer, 4).generate(
        requests, Sampling(temperature=0.7, top_k=20, seed=1)
    )
    for request, completion in zip(requests, completions, strict=True):
        ids = torch.tensor([[*request.token_ids, *completion.token_ids]])
        with torch.no_grad():
            scores = model(ids).logits.log_softmax(dim=-1)
        begin = len(request.token_ids)
        expected = [
            float(scores[0, begin + t - 1, token]) for t, token in enumerate(completion.token_ids)
        ]
        assert completion.log_probs == pytest.approx(expected, abs=1e-5)


def test_samples_do_not_depend_on_the_batch(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    requests = _requests(tokenizer)
    sampling = Sampling(temperature=1.0, seed=3)
    together = HuggingFaceGenerator(model, tokenizer, 64).generate(requests, sampling)
    alone = [
        HuggingFaceGenerator(model, tokenizer, 1).generate([request], sampling)[0]
        for request in requests
    ]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    assert len({c.token_ids for c in together[:3]}) > 1, "three samples of a prompt differ"


def test_a_segment_is_cut_where_it_ends(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    requests = _requests(tokenizer, tokens=20)
    sampling = Sampling(temperature=1.0, seed=0)
    generator = HuggingFaceGenerator(model, tokenizer, 64)
    whole = generator.generate(requests, sampling)
    cut = generator.generate(
        requests, sampling, lambda text: text.find("e") + 1 if "e" in text else None
    )
    assert any("e" in c.text for c in whole)
    for long, short in zip(whole, cut, strict=True):
        assert long.token_ids[: len(short.token_ids)] == short.token_ids
        if "e" in long.text:
            assert "e" in short.text
            assert short.offsets[-1][0] < short.text.find("e") + 1


def test_a_draw_picks_the_token_in_which_the_cumulative_probability_passes_it() -> None:
    # Probabilities 0.2, 0.5, 0.3; likeliest first: token 1 up to 0.5, token 2 to 0.8, token 0.
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().repeat(4, 1)
    draws = torch.tensor([0.0, 0.49, 0.51, 0.81])
    chosen = _choose(logits, Sampling(temperature=1.0), draws)
    assert chosen.tolist() == [1, 1, 2, 0]
    # With top-k 2 the probabilities become 0.625 and 0.375.
    chosen = _choose(
        logits, Sampling(temperature=1.0, top_k=2), torch.tensor([0.6, 0.63, 0.9, 1.0])
    )
    assert chosen.tolist() == [1, 2, 2, 2]
    # At temperature 0.5 the probabilities are squared: 4, 25, 9 of 38.
    chosen = _choose(logits, Sampling(temperature=0.5), torch.tensor([0.65, 0.66, 0.89, 0.90]))
    assert chosen.tolist() == [1, 2, 2, 0]


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(
    loaded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    requests = _requests(tokenizer)
    sampling = Sampling(temperature=1.0, seed=3)
    expected = HuggingFaceGenerator(model, tokenizer, 64).generate(requests, sampling)
    generator = HuggingFaceGenerator(model, tokenizer, 4)
    prefill, sizes = generator._prefill, []

    def small(prompts):  # type: ignore[no-untyped-def]
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return prefill(prompts)

    monkeypatch.setattr(generator, "_prefill", small)
    found = generator.generate(requests, sampling)
    assert [c.token_ids for c in found] == [c.token_ids for c in expected]
    assert sizes[0] == 4
    assert sum(size for size in sizes if size <= 2) == len(requests)
    assert capsys.readouterr().err == "memory ran out, goes on with 2 sequences at once\n"
    monkeypatch.setattr(generator, "_prefill", lambda _: _raise(MemoryError()))
    with pytest.raises(InputError, match="no memory to generate after a prompt of"):
        generator.generate(requests, sampling)


def _raise(error: BaseException) -> None:
    raise error


def test_the_token_that_ends_an_answer_writes_nothing_even_if_it_is_a_word(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    requests = _requests(tokenizer, tokens=8)[:1]
    whole = HuggingFaceGenerator(model, tokenizer, 4).generate(requests, Sampling())[0]
    written = [place for place, (a, b) in enumerate(whole.offsets) if b > a and place > 0]
    end = whole.token_ids[written[0]]
    place = whole.token_ids.index(end)
    short = HuggingFaceGenerator(model, tokenizer, 4, end).generate(requests, Sampling())[0]
    assert short.token_ids == whole.token_ids[: place + 1]
    assert short.finished
    assert short.text == whole.text[: whole.offsets[place][0]]
    assert short.offsets[-1] == (len(short.text), len(short.text))
