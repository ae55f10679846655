import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.verify import models
from citepipe.verify.base import Pair, provenance_of
from citepipe.verify.cache import CachedVerifier
from citepipe.verify.load import load_verifier
from citepipe.verify.models import TEMPLATES, ClassifierVerifier, load_classifier, load_seq2seq
from tests.verify.tiny_models import make_classifier, make_t5

SPOKEN = "premise: hypothesis: Title: Silver River was directed by Anna Berg 1 0 . { } predict:"
WORDS = [*SPOKEN.split(), *TEMPLATES["attrscore"].text.split(), "Attributable"]
PAIRS = [
    Pair(f"{w} {'Berg ' * i}", f"{v} {w}") for i in range(5) for w in WORDS[:8] for v in WORDS[5:9]
]


def save_speaking(
    directory: Path, spoken: list[str], template: str = "true", **settings: int
) -> Path:
    """A T5 with random weights that says only the given words, which one by what it reads.

    Random weights alone say much the same of everything: the part of the decoder's states that all
    inputs share is far larger than what tells them apart. So the rows of the output layer are
    random in the directions in which that part is nothing.
    """
    import torch
    from transformers import AutoTokenizer

    model = make_t5(directory, list(dict.fromkeys(WORDS)), d_model=64, **settings).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    known = tokenizer.convert_tokens_to_ids(spoken)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                scale = 1.0 if "EncDecAttention" in name else 0.3
                parameter.copy_(torch.randn_like(parameter) * scale)
        answers = [[0], *([0, a] for a in known), *([0, a, b] for a in known for b in known)]
        shared, states = [], []
        model.lm_head.register_forward_pre_hook(lambda _, read: states.append(read[0][0, -1]))
        for answer in answers:
            states.clear()
            for pair in PAIRS[::16]:
                ids = tokenizer(asked(template, pair), return_tensors="pt").input_ids
                model(input_ids=ids, decoder_input_ids=torch.tensor([answer]))
            shared.append(torch.stack(states).mean(0))
        directions = torch.linalg.qr(torch.stack(shared).T).Q
        head = torch.zeros_like(model.lm_head.weight)
        for token in known:
            row = torch.randn(head.shape[1])
            head[token] = row - directions @ (directions.T @ row)
        # Anything else is said only where all of them are unlikely.
        # A matrix of its own: T5 begins with the embeddings there.
        model.lm_head.weight = torch.nn.Parameter(head)
    model.config.tie_word_embeddings = False
    model.save_pretrained(directory)
    return directory


def asked(template: str, pair: Pair) -> str:
    text = TEMPLATES[template].text.replace("{premise}", pair.premise)
    return text.replace("{hypothesis}", pair.hypothesis)


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says 1, 0 and the end, in any order."""
    return save_speaking(tmp_path_factory.mktemp("t5"), ["1", "0", "</s>"])


def loaded(directory: Path, kind: str = "AutoModelForSeq2SeqLM") -> tuple[Any, Any]:
    """Model and tokenizer as transformers alone loads them."""
    import transformers

    model = getattr(transformers, kind).from_pretrained(directory).eval()
    return model, transformers.AutoTokenizer.from_pretrained(directory)


def generated(directory: Path, template: str) -> list[str]:
    """What the peers would read: ten greedy tokens for one pair at a time."""
    import torch

    model, tokenizer = loaded(directory)
    texts = []
    for pair in PAIRS:
        ids = tokenizer(asked(template, pair), return_tensors="pt").input_ids
        with torch.inference_mode():
            tokens = model.generate(ids, max_new_tokens=10, do_sample=False, num_beams=1)
        texts.append(tokenizer.decode(tokens[0], skip_special_tokens=True))
    return texts


@pytest.mark.parametrize(
    ("template", "spoken", "label", "begins"),
    [
        # The first token alone would have taken the last of these for entailed.
        ("true", ["1", "0", "</s>"], "1", "1 "),
        # An answer that never ends is read after ten tokens.
        ("true", ["1", "0"], "1", "1 1 1 1 1 1 1 1 1 1"),
        # Case does not count.
        ("attrscore", ["Attributable", "0", "</s>"], "attributable", "attributable "),
    ],
)
def test_decisions_are_those_of_generate(
    tmp_path: Path, template: str, spoken: list[str], label: str, begins: str
):
    directory = save_speaking(tmp_path, spoken, template)
    texts = [text.casefold() for text in generated(directory, template)]
    verifier = load_seq2seq(str(directory), device="cpu", template=template)
    assert verifier.entails(PAIRS) == [text == label for text in texts]
    assert any(text.startswith(begins) for text in texts)
    assert verifier.question_first == (template == "attrscore")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_cheaper_attention_is_that_of_t5(tiny_t5: Path, attention: str):
    """The encoder's to the last bit, the decoder's up to rounding; of a padded batch, whose masks
    are of booleans (sdpa) or to be added (eager)."""
    import torch

    model, tokenizer = loaded(tiny_t5)
    model.set_attn_implementation(attention)
    batch = tokenizer([asked("true", p) for p in PAIRS[::48]], return_tensors="pt", padding=True)
    assert batch.attention_mask.min() == 0
    start = torch.zeros(len(batch.input_ids), 1, dtype=torch.long)
    with torch.inference_mode():
        expected = model(**batch, decoder_input_ids=start)
        computed = []
        for block in model.decoder.block:
            for weight in (block.layer[1].EncDecAttention.k, block.layer[1].EncDecAttention.v):
                weight.register_forward_hook(lambda *_: computed.append(True))
        models._attend_cheaply(model)
        found = model(**batch, decoder_input_ids=start)
    assert found.encoder_last_hidden_state.equal(expected.encoder_last_hidden_state)
    torch.testing.assert_close(found.logits, expected.logits)
    assert not computed


def test_near_ties_are_decided_alone_as_the_peers_do(
    tiny_t5: Path, monkeypatch: pytest.MonkeyPatch
):
    """With a bound on rounding that calls everything a tie, every pair has a `generate` of its
    own, without padding."""
    monkeypatch.setattr(models, "_ROUNDING", 10.0)
    verifier = load_seq2seq(str(tiny_t5), device="cpu")
    generate, alone = verifier._generate, []

    def counting(ids, mask=None, *others):
        alone.extend([len(ids)] if mask is None else [])
        return generate(ids, mask, *others)

    monkeypatch.setattr(verifier, "_generate", counting)
    assert verifier.entails(PAIRS) == [text == "1" for text in generated(tiny_t5, "true")]
    assert alone == [1] * len(set(PAIRS))


def test_a_near_tie_is_one_within_rounding():
    import torch

    logits = torch.tensor([[9.0, 1.0, 9.0001], [9.0, 1.0, 9.01], [0.0, 0.0, -5.0]])
    assert models._nearly_tied(logits).tolist() == [True, False, True]


def test_minicheck_compares_two_answers(tiny_t5: Path):
    """The logit of 1 over that of 0, whatever else the model would rather say."""
    import torch

    model, tokenizer = loaded(tiny_t5)
    one, zero = tokenizer.convert_tokens_to_ids(["1", "0"])
    expected = []
    for premise, hypothesis in PAIRS:
        ids = tokenizer(f"predict: {premise}</s>{hypothesis}", return_tensors="pt").input_ids
        start = torch.zeros(1, 1, dtype=torch.long)
        with torch.inference_mode():
            logits = model(input_ids=ids, decoder_input_ids=start).logits[0, 0]
        expected.append(bool(logits[[zero, one]].softmax(0)[1] > 0.5))
    verifier = load_seq2seq(str(tiny_t5), device="cpu", template="minicheck")
    assert verifier.entails(PAIRS) == expected
    assert set(expected) == {True, False}


def test_batches_decide_the_longest_first_and_each_pair_once(tiny_t5: Path):
    verifier = load_seq2seq(str(tiny_t5), device="cpu")
    whole = verifier.entails(PAIRS)
    verifier.tokens_per_batch = 40
    batches = list(verifier.decisions([*PAIRS, *PAIRS]))
    decided = [decision for batch in batches for decision in batch]
    lengths = [len(pair.premise.split()) + len(pair.hypothesis.split()) for pair, _ in decided]
    assert sorted(decided) == sorted(set(zip(PAIRS, whole, strict=True)))
    assert lengths == sorted(lengths, reverse=True)
    assert len(batches) > 10
    verifier.tokens_per_batch = 1
    assert verifier.entails(PAIRS) == whole
    assert verifier.entails([]) == []


def test_a_batch_that_does_not_fit_is_halved_and_so_are_later_ones(
    tiny_t5: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import torch

    verifier = load_seq2seq(str(tiny_t5), device="cpu")
    expected = verifier.entails(PAIRS)
    step, sizes = verifier._step, []

    def small_memory(batch):
        sizes.append(len(batch.input_ids))
        if sizes[-1] > 20:
            kind = [torch.OutOfMemoryError, RuntimeError][len(sizes) % 2]
            raise kind("DefaultCPUAllocator: can't allocate memory")
        return step(batch)

    monkeypatch.setattr(verifier, "_step", small_memory)
    verifier.tokens_per_batch = 500
    assert verifier.entails(PAIRS) == expected
    # 500 tokens are 50 pairs of 10 tokens.
    assert sizes[:3] == [50, 25, 12]
    assert "memory ran out, goes on with 250 tokens a batch" in capsys.readouterr().err
    sizes.clear()
    assert verifier.entails(PAIRS) == expected
    assert max(sizes) <= 20


def test_memory_for_no_pair_is_one_clear_line_and_other_errors_are_not_taken_for_it(
    tiny_t5: Path, monkeypatch: pytest.MonkeyPatch
):
    verifier = load_seq2seq(str(tiny_t5), device="cpu")
    errors = iter([ValueError("shapes"), *[MemoryError()] * 10])
    monkeypatch.setattr(verifier, "_step", lambda _: (_ for _ in ()).throw(next(errors)))
    with pytest.raises(ValueError, match="shapes"):
        verifier.entails(PAIRS)
    with pytest.raises(InputError, match="no memory for one pair of 10 tokens, premise 'hypothe"):
        verifier.entails(PAIRS)


def test_pairs_that_are_cut_are_counted_and_braces_in_a_passage_are_text(
    tiny_t5: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(models, "MAX_LENGTH", 8)
    verifier = load_seq2seq(str(tiny_t5), device="cpu")
    verifier.entails([Pair("Berg", "Anna"), Pair("Berg", "Anna was directed by Berg")])
    assert "1 of 2 pairs reached the limit of 8 tokens" in capsys.readouterr().err
    (ids,) = verifier._encode([Pair("{ hypothesis: } Berg", "{premise} 1 0")])["input_ids"]
    words = ["premise:", "{", "hypothesis:", "}", "Berg", "hypothesis:", "{premise}", "</s>"]
    assert verifier._tokenizer.convert_ids_to_tokens(ids) == words


def test_the_spec_of_a_model_gives_a_cached_verifier(tiny_t5: Path, tmp_path: Path):
    verifier = load_verifier(f"{tiny_t5}?dtype=float32", tmp_path / "c.sqlite", device="cpu")
    assert isinstance(verifier, CachedVerifier)
    first = verifier.entails(PAIRS[:5])
    assert verifier.entails(PAIRS[:6])[:5] == first
    assert verifier.computed == 6
    known = {"kind": "seq2seq", "model": str(tiny_t5), "dtype": "float32", "max_length": 2048}
    known |= {"template": "true", "label": "1", "revision": verifier.provenance["revision"]}
    assert verifier.provenance == known


def test_a_model_is_loaded_for_what_nobody_has_decided(tmp_path: Path):
    directory, cache = tmp_path / "model", tmp_path / "c.sqlite"
    save_speaking(directory, ["1", "0", "</s>"])
    first = load_verifier(str(directory), cache, device="cpu")
    expected = first.entails(PAIRS[:5])
    code = (
        "import sys; from pathlib import Path; from citepipe.verify.load import load_verifier\n"
        "from tests.verify.test_models import PAIRS\n"
        "verifier = load_verifier(sys.argv[1], Path(sys.argv[2]), 'cpu')\n"
        "print(verifier.entails(PAIRS[:5]), verifier.provenance, 'torch' in sys.modules)\n"
        "print(len(verifier.entails(PAIRS[:6])), verifier.computed, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(directory), str(cache)]
    assert subprocess.check_output(command, text=True).splitlines() == [
        f"{expected} {provenance_of(first)} False",
        "6 1 True",
    ]
    # Another model in the same place is not taken for it.
    save_speaking(directory, ["1", "0", "</s>"], initializer_factor=2.0)
    other = load_verifier(str(directory), cache, device="cpu")
    assert provenance_of(other)["revision"] != provenance_of(first)["revision"]
    assert len(other.entails(PAIRS[:5])) == other.computed == 5


def test_fewer_bits_decide_nearly_the_same(tmp_path: Path):
    directory = save_speaking(tmp_path, ["1", "0", "</s>"], d_kv=32, d_ff=64)
    whole = load_seq2seq(str(directory), device="cpu").entails(PAIRS)
    fewer = load_verifier(f"{directory}?dtype=bfloat16", device="cpu")
    assert provenance_of(fewer)["dtype"] == "bfloat16"
    same = [a == b for a, b in zip(fewer.entails(PAIRS), whole, strict=True)]
    assert sum(same) > 0.8 * len(PAIRS)


def test_a_tokenizer_without_the_label(tmp_path: Path):
    make_t5(tmp_path, ["0", "premise:"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no token for the label '1'"):
        load_verifier(str(tmp_path), device="cpu")


NLI = ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]


@pytest.fixture(scope="module")
def nli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("nli"), "bert", WORDS, NLI)


@pytest.fixture(scope="module")
def minicheck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("minicheck"), "roberta", WORDS, ["0", "1"])


def probabilities(directory: Path, *inputs: list[str]) -> list[list[float]]:
    """Of every label for texts, or for pairs of texts, one at a time, by transformers alone."""
    import torch

    model, tokenizer = loaded(directory, "AutoModelForSequenceClassification")
    with torch.inference_mode():
        return [
            model(**tokenizer(*texts, return_tensors="pt")).logits.softmax(-1)[0].tolist()
            for texts in zip(*inputs, strict=True)
        ]


def test_nli_is_the_argmax_of_two_segments(nli: Path):
    premises, hypotheses = ([pair[i] for pair in PAIRS] for i in (0, 1))
    expected = [p[2] == max(p) for p in probabilities(nli, premises, hypotheses)]
    verifier = load_classifier(str(nli), device="cpu")
    assert verifier.entails(PAIRS) == expected
    assert set(expected) == {True, False}
    assert verifier.provenance["label"] == "2 ENTAILMENT"
    assert verifier.provenance["threshold"] is None
    verifier.tokens_per_batch = 1
    assert verifier.entails(PAIRS) == expected


@pytest.mark.parametrize(
    ("setting", "label", "threshold"),
    [("", 1, 0.5), ("?threshold=0.9", 1, 0.9), ("?label=0&threshold=0.2", 0, 0.2)],
)
def test_minicheck_is_one_text_and_a_probability(
    minicheck: Path, setting: str, label: int, threshold: float
):
    texts = [f"{premise}</s>{hypothesis}" for premise, hypothesis in PAIRS]
    expected = [p[label] > threshold for p in probabilities(minicheck, texts)]
    assert load_verifier(f"{minicheck}{setting}", device="cpu").entails(PAIRS) == expected
    assert set(expected) == {True, False}


def test_a_causal_classifier_needs_no_mask_of_padding(tmp_path: Path):
    directory = make_classifier(tmp_path, "llama", WORDS, ["0", "1"])
    texts = [f"{premise}</s>{hypothesis}" for premise, hypothesis in PAIRS]
    expected = [p[1] > 0.5 for p in probabilities(directory, texts)]
    verifier, given = load_classifier(str(directory), device="cpu"), []
    verifier._model.register_forward_pre_hook(
        lambda _, __, inputs: given.append(list(inputs)), with_kwargs=True
    )
    assert verifier.entails(PAIRS) == expected
    assert set(expected) == {True, False}
    assert given == [["input_ids"]] * len(given)


def test_a_claim_is_supported_where_no_token_of_it_is_marked(tmp_path: Path):
    """By transformers alone, a pair at a time: the tokens behind the first separator, but the last
    one, which is another."""
    import torch

    asked = "Summarize the following text: passage 1: output:"
    words = list(dict.fromkeys([*WORDS, *asked.split()]))
    directory = make_classifier(tmp_path, "tokens", words, ["LABEL_0", "LABEL_1"])
    model, tokenizer = loaded(directory, "AutoModelForTokenClassification")
    expected = []
    for premise, claim in PAIRS:
        text = f"Summarize the following text:\npassage 1: {premise}\noutput:"
        ids = tokenizer(text, claim, return_tensors="pt")
        with torch.inference_mode():
            marked = model(**ids).logits[0].softmax(-1)[-1 - len(claim.split()) : -1, 1]
        expected.append(marked.max().item())
    assert load_verifier(str(directory), device="cpu").entails(PAIRS) == [
        p <= 0.5 for p in expected
    ]
    strict = load_verifier(f"{directory}?threshold=0.9", device="cpu").entails(PAIRS)
    assert strict == [p < 0.1 for p in expected]
    assert 0 < sum(strict) < sum(p <= 0.5 for p in expected) < len(PAIRS)


def test_the_premise_is_cut_and_the_hypothesis_is_not(nli: Path, minicheck: Path):
    def words(verifier: ClassifierVerifier, pair: Pair) -> list[str]:
        (ids,) = verifier._encode([pair])["input_ids"]
        return list(verifier._tokenizer.convert_ids_to_tokens(ids))

    one_text, segments = (load_classifier(str(d), device="cpu") for d in (minicheck, nli))
    # 33 positions less the padding index and what is before it.
    assert (one_text.max_length, segments.max_length) == (32, 64)
    long = Pair("Silver " * 80, "Anna Berg")
    assert words(one_text, long) == ["<s>", *["Silver"] * 27, "</s>", "Anna", "Berg", "</s>"]
    assert words(segments, long) == ["<s>", *["Silver"] * 59, "</s>", "Anna", "Berg", "</s>"]
    assert segments._encode([long])["token_type_ids"] == [[0] * 61 + [1] * 3]
    assert len(words(one_text, Pair("Silver", "Berg " * 40))) == 32


def test_labels_that_say_nothing_need_one_named(nli: Path, tmp_path: Path):
    silent = make_classifier(tmp_path, "bert", WORDS, ["LABEL_0", "LABEL_1", "LABEL_2"])
    with pytest.raises(InputError, match=r"\(0 LABEL_0, 1 LABEL_1, 2 LABEL_2\) do not say"):
        load_verifier(str(silent), device="cpu")
    expected = load_verifier(str(nli), device="cpu").entails(PAIRS)
    assert load_verifier(f"{silent}?label=2", device="cpu").entails(PAIRS) == expected
    assert load_verifier(f"{silent}?label=LABEL_2", device="cpu").entails(PAIRS) == expected
    with pytest.raises(InputError, match="label '3', expected one of 0 LABEL_0"):
        load_verifier(f"{silent}?label=3", device="cpu")
    two = make_classifier(tmp_path, "bert", WORDS, ["entailment", "not_entailment"])
    provenance = load_classifier(str(two), device="cpu").provenance
    assert (provenance["label"], provenance["template"]) == ("0 entailment", "nli")


@pytest.mark.parametrize(
    ("model", "setting", "message"),
    [
        ("tiny_t5", "dtype=int3", "dtype 'int3', expected auto, float32, bfloat16, 4bit"),
        ("tiny_t5", "template=nli", "template 'nli', expected true, attrscore, minicheck"),
        ("tiny_t5", "device=cpu", "unknown setting 'device'"),
        ("tiny_t5", "threshold=0.5", "template true has no threshold"),
        ("tiny_t5", "dtype", "expected a model and settings|dtype ''"),
        ("nli", "threshold=0.5", "a threshold is for models of two labels, it has 3"),
        ("nli", "template=true", "template 'true', expected nli, minicheck"),
        *(
            ("minicheck", f"threshold={value}", "expected a number from 0 to below 1")
            for value in ("high", "1", "-0.1", "nan", "")
        ),
    ],
)
def test_settings_that_do_not_fit(
    request: pytest.FixtureRequest, model: str, setting: str, message: str
):
    with pytest.raises(InputError, match=message):
        load_verifier(f"{request.getfixturevalue(model)}?{setting}", device="cpu")
