"""The engine in this process on tiny models with random weights."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from citepipe.errors import InputError
from citepipe.generate import decode, engine
from citepipe.generate.completion import Completion, Request, Sampling
from citepipe.generate.decode import TreeDecoder
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.models.load import load_base, load_tokenizer
from citepipe.options import ModelOptions
from tests.generate.tiny_tokenizers import make_tokenizer

PROMPTS = [
    "Question: Who directed Silver River?\nAnswer:",
    "Where?",
    "Document [1](Title: Silver River): directed by Anna Berg.\nAnswer:",
]
DRAWN = Sampling(temperature=1.0, top_k=20, seed=3)


@pytest.fixture(scope="module")
def loaded(tiny_base: Path):  # type: ignore[no-untyped-def]
    options = ModelOptions(base=str(tiny_base), dtype="float32")
    return load_base(options), load_tokenizer(options)


def _requests(tokenizer: Any, tokens: int = 12, **others: Any) -> list[Request]:
    return [
        Request(tuple(tokenizer(p)["input_ids"]), p, tokens, samples=3, sampling=DRAWN, **others)
        for p in PROMPTS
    ]


def _ids(found: list[list[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[completion.token_ids for completion in own] for own in found]


SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
RECURRENT = {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8}
LEARNED = {"n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
MIXED = {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}
WINDOWS = GROUPED | {"sliding_window": 5}
KINDS: dict[str, tuple[type, dict[str, Any], bool]] = {
    "llama": (transformers.LlamaConfig, SIZES | {"num_key_value_heads": 2}, True),
    "windows": (transformers.MistralConfig, WINDOWS, True),
    "some windows": (transformers.Gemma3TextConfig, WINDOWS, True),
    "learned positions": (transformers.GPT2Config, LEARNED, True),
    "capped": (transformers.Gemma2Config, WINDOWS, False),
    "positions in the mask": (
        transformers.BloomConfig,
        {"hidden_size": 32, "n_layer": 2, "n_head": 4},
        False,
    ),
    "recurrent": (
        transformers.Mamba2Config,
        {"hidden_size": 32, "num_hidden_layers": 2} | RECURRENT,
        False,
    ),
    "partly recurrent": (transformers.Lfm2Config, SIZES | MIXED, False),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[Any, Any, bool]:
    """A model of a kind, a tokenizer, and whether it reads trees."""
    config, sizes, trees = KINDS[request.param]
    tokenizer = make_tokenizer("bytes")
    tokenizer.pad_token = tokenizer.eos_token
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(
            config(vocab_size=len(tokenizer), **sizes)
        ).eval()
        for weights in model.parameters():
            if weights.dim() > 1:
                torch.nn.init.normal_(weights, std=0.2)
    model.generation_config.eos_token_id = None
    return model, tokenizer, trees


def _prompts(count: int, size: int, seed: int = 0) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(size) for _ in range(rng.randint(3, 25))) for _ in range(count)]


def test_greedy_answers_are_those_of_generate(kind: tuple[Any, Any, bool]) -> None:
    model, tokenizer, trees = kind
    prompts = _prompts(6, len(tokenizer) - 1)
    requests = [Request(p, "", 15) for p in prompts]
    generator = HuggingFaceGenerator(model, tokenizer, 4, stop=())
    before = model.config._attn_implementation
    found = generator.generate(requests)
    assert generator._reads_trees == trees
    assert model.config._attn_implementation == before
    for prompt, [completion] in zip(prompts, found, strict=True):
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=15,
            do_sample=False,
        )
        answer = expected[0, len(prompt) :].tolist()
        ends = tokenizer.eos_token_id in answer
        if ends:
            answer = answer[: answer.index(tokenizer.eos_token_id) + 1]
        assert list(completion.token_ids) == answer
        assert completion.finish == ("end" if ends else "length")


def test_log_probabilities_are_those_of_a_plain_forward_pass(kind: tuple[Any, Any, bool]) -> None:
    model, tokenizer, _ = kind
    prompts = _prompts(7, len(tokenizer) - 1)
    requests = [Request(p, f"{i}", 30, samples=4, sampling=DRAWN) for i, p in enumerate(prompts)]
    for own, prompt in zip(
        HuggingFaceGenerator(model, tokenizer, 9).generate(requests), prompts, strict=True
    ):
        for completion in own:
            ids = torch.tensor([[*prompt, *completion.token_ids]])
            with torch.no_grad():
                scores = model(ids).logits[0].log_softmax(dim=-1)
            wanted = scores[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None])[:, 0]
            assert completion.log_probs == pytest.approx(wanted.tolist(), abs=2e-5)


def _count_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of every pass over trees from now on."""
    read: list[int] = []
    read_prompts, step = TreeDecoder._read, TreeDecoder.step

    def count_prompts(decoder: TreeDecoder, prompts: list[tuple[int, ...]]) -> None:
        read.append(sum(map(len, prompts)))
        read_prompts(decoder, prompts)

    def count_step(decoder: TreeDecoder, branches: list[Any]) -> torch.Tensor:
        read.append(len(branches))
        return step(decoder, branches)

    monkeypatch.setattr(TreeDecoder, "_read", count_prompts)
    monkeypatch.setattr(TreeDecoder, "step", count_step)
    return read


def _search(
    generator: HuggingFaceGenerator, prompts: list[tuple[int, ...]], keep: bool
) -> list[tuple[str, list[Completion]]]:
    """Three levels of segments; two children and their parent go on from each level."""
    found = []
    beams = [[()] for _ in prompts]
    for level in range(3):
        requests = [
            Request(
                prompts[q],
                f"{q}/{level}/{place}",
                40 - len(prefix),
                prefix=prefix,
                samples=3,
                sampling=DRAWN,
                segment_end=lambda text: 5 if len(text) > 5 else None,
            )
            for q, group in enumerate(beams)
            for place, prefix in enumerate(group)
        ]
        answers = generator.generate(requests, keep=keep and level < 2)
        found += [(request.key, own) for request, own in zip(requests, answers, strict=True)]
        new: list[list[tuple[int, ...]]] = [[] for _ in prompts]
        for request, own in zip(requests, answers, strict=True):
            group = new[int(request.key.partition("/")[0])]
            group += [request.prefix + c.token_ids for c in own if not c.finished][:2]
            group += [request.prefix] if request.prefix else []
        beams = [list(dict.fromkeys(group))[:4] for group in new]
    return found


def test_a_search_goes_on_from_what_was_kept(
    kind: tuple[Any, Any, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, trees = kind
    prompts = _prompts(5, len(tokenizer) - 1, seed=1)
    read = _count_tokens(monkeypatch)
    runs, tokens = [], []
    for keep, batch in ((True, 64), (False, 64), (True, 5)):
        read.clear()
        runs.append(_search(HuggingFaceGenerator(model, tokenizer, batch), prompts, keep))
        tokens.append(sum(read))
    for other in runs[1:]:
        for (key, ours), (same, theirs) in zip(runs[0], other, strict=True):
            assert key == same
            assert [c.token_ids for c in ours] == [c.token_ids for c in theirs]
            for a, b in zip(ours, theirs, strict=True):
                assert a.log_probs == pytest.approx(b.log_probs, abs=2e-5)
    if trees:
        # Prompts are read at the first level only: not at two more.
        assert tokens[1] - tokens[0] >= 2 * sum(map(len, prompts))


def test_prompts_are_read_once_for_all_their_samples(
    loaded, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    read = _count_tokens(monkeypatch)
    requests = _requests(tokenizer)
    monkeypatch.setattr(engine, "reads_trees", lambda _: True)  # it would be counted, too
    found = HuggingFaceGenerator(model, tokenizer, 2).generate(requests)
    prompts = sum(len(request.prompt) for request in requests)
    # Each sample reads the prompt's last token anew, and does not read its own last one.
    assert sum(read) == prompts + sum(len(c.token_ids) for own in found for c in own)


def test_samples_do_not_depend_on_the_batch(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    requests = _requests(tokenizer)
    together = HuggingFaceGenerator(model, tokenizer).generate(requests)
    assert len({c.token_ids for c in together[0]}) > 1, "samples of a prompt differ"
    reported: dict[tuple[int, int], Completion] = {}

    def done(number: int, sample: int, completion: Completion) -> None:
        reported[number, sample] = completion

    for batch in (1, 4, 64):
        reported.clear()
        found = HuggingFaceGenerator(model, tokenizer, batch).generate(requests, done)
        assert _ids(found) == _ids(together)
        assert reported == {(n, s): one for n, own in enumerate(found) for s, one in enumerate(own)}
    alone = [HuggingFaceGenerator(model, tokenizer).generate([r])[0] for r in requests]
    assert _ids(alone) == _ids(together)


def test_a_long_prompt_is_read_by_itself_and_not_again_for_doubtful_tokens(
    kind: tuple[Any, Any, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, trees = kind
    if not trees:
        pytest.skip("answers are run batch by batch")
    requests = [
        Request(prompt, f"{i}", 4, samples=2, sampling=DRAWN)
        for i, prompt in enumerate(_prompts(3, len(tokenizer) - 1))
    ]
    choose = engine.choose

    def doubt(*given: Any) -> tuple[torch.Tensor, ...]:
        chosen, scores, unsure = choose(*given)
        return chosen, scores, torch.ones_like(unsure)

    monkeypatch.setattr(engine, "choose", doubt)
    whole = HuggingFaceGenerator(model, tokenizer).generate(requests)
    # Every prompt is long.
    monkeypatch.setitem(decode.PREFILL_TOKENS, "cpu", 2)
    read: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    found = HuggingFaceGenerator(model, tokenizer).generate(requests)
    hook.remove()
    # What is computed from the prompt's own keys and values is the same to the last bit.
    assert found == HuggingFaceGenerator(model, tokenizer, 2).generate(requests)
    assert _ids(found) == _ids(whole)
    assert max(read) <= max(len(request.prompt) for request in requests)


def test_requests_of_one_prompt_with_different_parameters(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    prompt = tuple(tokenizer(PROMPTS[0])["input_ids"])
    requests = [
        Request(prompt, "a", 12, samples=2, sampling=DRAWN),
        Request(prompt, "b", 5),
        Request(prompt, "a", 0),
        Request(prompt, "c", 9, sampling=Sampling(0.3, 5, 1)),
    ]
    found = HuggingFaceGenerator(model, tokenizer, 64).generate(requests)
    for request, own in zip(requests, found, strict=True):
        assert _ids([own]) == _ids(HuggingFaceGenerator(model, tokenizer, 1).generate([request]))
    assert found[2][0] == Completion((), "", (), (), "length")


def test_a_segment_is_cut_where_it_ends(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    generator = HuggingFaceGenerator(model, tokenizer, 64)
    whole = generator.generate(_requests(tokenizer, 20))
    cut = generator.generate(
        _requests(
            tokenizer, 20, segment_end=lambda text: text.find("e") + 1 if "e" in text else None
        )
    )
    pairs = [pair for both in zip(whole, cut, strict=True) for pair in zip(*both, strict=True)]
    assert any("e" in long.text for long, _ in pairs)
    for long, short in pairs:
        assert long.token_ids[: len(short.token_ids)] == short.token_ids
        if "e" in long.text:
            assert short.finish == "segment"
            assert "e" in short.text
            assert short.offsets[-1][0] < short.text.find("e") + 1


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(
    loaded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    requests = _requests(tokenizer)
    expected = HuggingFaceGenerator(model, tokenizer, 64).generate(requests)
    step, sizes = TreeDecoder.step, []

    def small(decoder: TreeDecoder, sequences: list[Any]) -> torch.Tensor:
        sizes.append(len(sequences))
        if len(sequences) > 2 and len(sizes) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(decoder, sequences)

    monkeypatch.setattr(engine, "reads_trees", lambda _: True)
    monkeypatch.setattr(TreeDecoder, "step", small)
    found = HuggingFaceGenerator(model, tokenizer, 5).generate(requests)
    assert _ids(found) == _ids(expected)
    assert sizes[:4] == [5, 5, 5, 5], "three steps were done before memory ran out"
    assert max(sizes[4:]) == 2
    assert capsys.readouterr().err == "memory ran out, goes on with 2 sequences at once\n"
    monkeypatch.setattr(TreeDecoder, "start", lambda *_: _raise(MemoryError()))
    with pytest.raises(InputError, match="no memory to generate after"):
        HuggingFaceGenerator(model, tokenizer, 5).generate(requests)


def _raise(error: BaseException) -> None:
    raise error


def test_the_batch_follows_the_memory(loaded, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    config = model.config
    size = config.hidden_size // config.num_attention_heads
    column = 2 * config.num_hidden_layers * config.num_key_value_heads * size * 4
    requests = _requests(tokenizer)
    # Room for the longest prompt and for two of its answers.
    columns = max(len(request.prompt) for request in requests) + 2 * 12
    free = int(columns * column / engine.SHARE_FOR_CACHE) + column
    monkeypatch.setattr(engine, "free_memory", lambda _: free)
    generator = HuggingFaceGenerator(model, tokenizer)
    assert generator.capacity == 1
    assert HuggingFaceGenerator(model, tokenizer, 5).capacity == 10
    monkeypatch.setattr(engine, "reads_trees", lambda _: True)
    sizes = []
    start = TreeDecoder.start
    monkeypatch.setattr(TreeDecoder, "start", lambda d, s: sizes.append(len(s)) or start(d, s))
    assert _ids(generator.generate(requests)) == _ids(
        HuggingFaceGenerator(model, tokenizer, 64).generate(requests)
    )
    assert sizes[0] == 2


def test_only_so_much_is_kept_as_memory_allows(loaded, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    prompts = [tuple(tokenizer(p)["input_ids"]) for p in PROMPTS]
    read = _count_tokens(monkeypatch)
    whole = _search(HuggingFaceGenerator(model, tokenizer), prompts, True)
    enough = sum(read)
    read.clear()
    monkeypatch.setattr(engine, "_columns_in_memory", lambda _: 100)
    found = _search(HuggingFaceGenerator(model, tokenizer), prompts, True)
    assert [_ids([own]) for _, own in found] == [_ids([own]) for _, own in whole]
    assert sum(read) > enough, "some of it had to be read again"


def test_the_token_that_ends_an_answer_writes_nothing_even_if_it_is_a_word(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    request = Request(tuple(tokenizer(PROMPTS[0])["input_ids"]), "", 8)
    [[whole]] = HuggingFaceGenerator(model, tokenizer, 4).generate([request])
    written = [place for place, (a, b) in enumerate(whole.offsets) if b > a and place > 0]
    end = whole.token_ids[written[0]]
    place = whole.token_ids.index(end)
    [[short]] = HuggingFaceGenerator(model, tokenizer, 4, end).generate([request])
    assert short.token_ids == whole.token_ids[: place + 1]
    assert short.finish == "end"
    assert short.text == whole.text[: whole.offsets[place][0]]
    assert short.offsets[-1] == (len(short.text), len(short.text))
