from pathlib import Path

import pytest

from citepipe.errors import InputError
from citepipe.verify.base import Pair
from citepipe.verify.cache import CachedVerifier
from citepipe.verify.load import load_verifier
from citepipe.verify.seq2seq import TEMPLATES, Seq2SeqVerifier, load_seq2seq

WORDS = [
    "premise:",
    "hypothesis:",
    "Title:",
    "Silver",
    "River",
    "was",
    "directed",
    "by",
    "Anna",
    "Berg",
    "1",
    "0",
    ".",
    "{",
    "}",
]
PAIRS = [Pair(f"Title: Silver River {'Berg ' * i}", f"Anna {w}") for i in range(8) for w in WORDS]


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 with random weights and a word tokenizer, in a directory."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    torch.set_num_threads(1)
    torch.manual_seed(3)
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(vocabulary),
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=0,
            tie_word_embeddings=False,
        )
    )
    # All outputs but 1 and 0 are zero and those are opposites, so that both decisions occur.
    with torch.no_grad():
        keep = [vocabulary["1"], vocabulary["0"]]
        head = torch.zeros_like(model.lm_head.weight)
        head[keep[0]] = torch.randn(16)
        head[keep[1]] = -head[keep[0]]
        model.lm_head.weight.copy_(head)
    directory = tmp_path_factory.mktemp("t5")
    model.save_pretrained(directory)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(directory)
    return directory


def test_one_decoder_step_decides_as_generate_does(tiny_t5: Path):
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    model = T5ForConditionalGeneration.from_pretrained(tiny_t5).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_t5)
    expected = []
    for premise, hypothesis in PAIRS:
        ids = tokenizer(
            f"premise: {premise} hypothesis: {hypothesis}", return_tensors="pt"
        ).input_ids
        with torch.inference_mode():
            generated = model.generate(ids, max_new_tokens=1, do_sample=False)
        expected.append(tokenizer.decode(generated[0], skip_special_tokens=True) == "1")
    assert load_seq2seq(str(tiny_t5), device="cpu").entails(PAIRS) == expected
    assert len(set(expected)) == 2


def test_batching_changes_no_decision(tiny_t5: Path):
    whole = load_seq2seq(str(tiny_t5), device="cpu")
    narrow = Seq2SeqVerifier(
        "tiny", whole._model, whole._tokenizer, TEMPLATES["true"], "", tokens_per_batch=1
    )
    assert narrow.entails(PAIRS) == whole.entails(PAIRS)
    assert whole.entails([]) == []


def test_a_batch_that_does_not_fit_is_halved(tiny_t5: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    verifier = load_seq2seq(str(tiny_t5), device="cpu")
    expected = verifier.entails(PAIRS)
    step = verifier._step

    def small_memory(inputs: list[list[int]]) -> list[bool]:
        if len(inputs) > 3:
            raise torch.OutOfMemoryError
        return step(inputs)

    monkeypatch.setattr(verifier, "_step", small_memory)
    assert verifier.entails(PAIRS) == expected


def test_the_spec_of_a_model_gives_a_cached_verifier(tiny_t5: Path, tmp_path: Path):
    verifier = load_verifier(f"{tiny_t5}?dtype=float32", tmp_path / "c.sqlite", device="cpu")
    assert isinstance(verifier, CachedVerifier)
    first = verifier.entails(PAIRS[:5])
    assert verifier.entails(PAIRS[:5]) == first
    assert '"template": "true"' in verifier.identity


def test_attrscore_reads_the_claim_first_and_wants_the_question():
    template = TEMPLATES["attrscore"]
    assert template.text.index("{hypothesis}") < template.text.index("{premise}")
    assert template.question_first


def test_what_is_not_a_verifier(tmp_path: Path, tiny_t5: Path):
    with pytest.raises(InputError, match="not a model directory"):
        load_verifier(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="not a seq2seq model"):
        load_verifier(str(tmp_path))
    with pytest.raises(InputError, match="dtype"):
        load_verifier(f"{tiny_t5}?dtype=int3")
    with pytest.raises(InputError, match="unknown setting"):
        load_verifier(f"{tiny_t5}?device=cpu")
    with pytest.raises(InputError, match="no token for the label"):
        load_verifier(f"{tiny_t5}?template=attrscore")
