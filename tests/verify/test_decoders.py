"""Decoders that answer yes or no: what they read, and decisions as by transformers alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.verify.base import Pair
from citepipe.verify.decoders import TEMPLATES, load_decoder, read_template
from citepipe.verify.load import load_verifier
from tests.verify.test_models import PAIRS, WORDS, loaded
from tests.verify.tiny_models import make_decoder

ASK = "Says {premise} that {claim} ?"
ALSO = "system user assistant Document: Claim: Says that ? Yes yes ĠNO No"
SPOKEN = list(dict.fromkeys([*WORDS, *ALSO.split()]))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("decoder"), SPOKEN)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "ask.txt"
    path.write_text(ASK + "\n")
    return path


def by_transformers(directory: Path, pairs: list[Pair]) -> list[float]:
    """Probability of yes against no, one pair at a time."""
    import torch

    model, tokenizer = loaded(directory, "AutoModelForCausalLM")
    yes, no = (tokenizer.convert_tokens_to_ids(words) for words in (["Yes", "yes"], ["ĠNO", "No"]))
    found = []
    for premise, claim in pairs:
        message = {"role": "user", "content": f"Says {premise} that {claim} ?"}
        text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.inference_mode():
            spread = model(ids).logits[0, -1].softmax(-1)
        found.append((spread[yes].sum() / spread[yes + no].sum()).item())
    return found


@pytest.mark.parametrize("tokens", [1, 2048])
def test_decisions_are_those_of_transformers(tiny: Path, template: Path, tokens: int):
    expected = by_transformers(tiny, PAIRS)
    verifier = load_decoder(str(tiny), device="cpu", template=str(template))
    verifier.tokens_per_batch = tokens
    assert verifier.entails(PAIRS) == [p > 0.5 for p in expected]
    supports = {pair: p for batch in verifier.supports(PAIRS) for pair, p in batch}
    assert [supports[pair] for pair in PAIRS] == pytest.approx(expected, abs=1e-5)
    assert 0 < sum(p > 0.5 for p in expected) < len(PAIRS)


def test_thresholds_may_leave_pairs_undecided_and_the_cache_knows_it(
    tiny: Path, template: Path, tmp_path: Path
):
    expected = by_transformers(tiny, PAIRS)
    low, high = sorted(expected)[len(PAIRS) // 4], sorted(expected)[-len(PAIRS) // 4]
    spec = f"{tiny}?template={template}&threshold={low + 1e-4:.4f}-{high + 1e-4:.4f}"
    wanted = [True if p > high + 1e-4 else None if p > low + 1e-4 else False for p in expected]
    for computed in (len(set(PAIRS)), 0):
        verifier: Any = load_verifier(spec, tmp_path / "c.sqlite", "cpu")
        assert verifier.verdicts(PAIRS) == wanted
        assert verifier.computed == computed
    assert verifier.entails(PAIRS) == list(map(bool, wanted))
    # Another text in the same file is another template.
    template.write_text(ASK.replace("Says", "that"))
    other: Any = load_verifier(spec, tmp_path / "c.sqlite", "cpu")
    assert other.identity != verifier.identity


def test_the_likeliest_word_grades_and_the_cache_knows_it(tmp_path: Path):
    """By transformers alone, one pair at a time."""
    import torch

    spoken, pairs = [*SPOKEN, "Full", "Partial", "a", "b"], PAIRS[-60:]
    directory = make_decoder(tmp_path / "judge", [*dict.fromkeys(spoken)])
    template = tmp_path / "ask.txt"
    template.write_text(f"{ASK} No partial support yes Yes that")
    model, tokenizer = loaded(directory, "AutoModelForCausalLM")
    words = [["Full"], ["No", "ĠNO"], ["Partial"]]
    expected = []
    for premise, claim in pairs:
        text = template.read_text().replace("{premise}", premise).replace("{claim}", claim)
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        with torch.inference_mode():
            spread = model(ids).logits[0, -1].softmax(-1)
        sums = [float(spread[tokenizer.convert_tokens_to_ids(own)].sum()) for own in words]
        expected.append((True, False, None)[sums.index(max(sums))])
    assert set(expected) == {True, False, None}
    for computed in (len(set(pairs)), 0):
        verifier: Any = load_verifier(f"{directory}?template={template}", tmp_path / "c.sqlite")
        assert (verifier.graded, verifier.verdicts(pairs)) == (True, expected)
        assert verifier.computed == computed
    assert load_verifier(f"{directory}?template={template}").entails(pairs) == [
        own is True for own in expected
    ]


def test_the_premise_is_cut_and_what_is_spelt_is_text(
    tiny: Path, template: Path, capsys: pytest.CaptureFixture[str]
):
    verifier = load_decoder(str(tiny), device="cpu", template=str(template))
    assert verifier.max_length == 64
    long = Pair("Silver " * 80, "Anna Berg")
    (row,) = verifier._encode([long])["input_ids"]
    shown = verifier._tokenizer.convert_ids_to_tokens(row)
    assert shown[:4] == ["<s>", "user", "Says", "Silver"]
    end = ["Silver", "that", "Anna", "Berg", "?", "</s>", "<s>", "assistant"]
    assert (shown[-8:], len(shown)) == (end, 64)
    verifier.entails([long, PAIRS[0]])
    assert "1 of 2 pairs reached the limit of 64 tokens" in capsys.readouterr().err
    # A document cannot end its own turn, nor a claim stand in a document's braces.
    (row,) = verifier._encode([Pair("</s> {claim}", "Berg")])["input_ids"]
    assert row.count(verifier._tokenizer.eos_token_id) == 1
    assert row.count(verifier._tokenizer.convert_tokens_to_ids("Berg")) == 1


def test_the_conversations_of_families(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    pair = Pair('"So", it\nsays.', "It says so.")
    assert read_template("bespokelabs/Bespoke-MiniCheck-7B", None) == TEMPLATES["minicheck"]
    system, asked = TEMPLATES["minicheck"].conversation(pair)
    assert system["content"].endswith('with either "Yes" or "No".')
    assert asked == {"role": "user", "content": 'Document: "So", it\nsays.\nClaim: It says so.'}
    guardian = read_template("ibm-granite/granite-guardian-4.1-8b", None)
    verifier = load_decoder(str(tiny), device="cpu", template="granite-guardian")
    text = verifier._text(pair)
    documents = json.dumps([{"doc_id": "0", "text": pair.premise}])
    assert text.startswith(f"{documents} <s> assistant It says so. </s> <s> user <guardian><no-th")
    assert text.endswith("return 'no'. </s> <s> assistant <think>\n</think>\n<score>")
    # Its yes means that something is not grounded.
    assert (guardian.word, guardian.against) == ("no", "yes")
    no, yes = verifier._words
    assert verifier._tokenizer.convert_ids_to_tokens([*no, *yes]) == ["ĠNO", "No", "Yes", "yes"]


def test_what_is_no_judge_is_one_clear_line(tiny: Path, tmp_path: Path):
    half = tmp_path / "half.txt"
    half.write_text("Is {claim} so?")
    for named, line in (("no.txt", "expected minicheck, granite-"), (half, "with {premise}")):
        with pytest.raises(InputError, match=line):
            load_verifier(f"{tiny}?template={named}", device="cpu")
    silent = make_decoder(tmp_path / "silent", ["yes"])
    with pytest.raises(InputError, match="no token for one of yes, no"):
        load_verifier(str(silent), device="cpu")
    (silent / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        load_verifier(str(silent), device="cpu")
    remote = {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"]}
    remote["auto_map"] = {"AutoConfig": "configuration_internlm2.InternLM2Config"}
    (silent / "config.json").write_text(json.dumps(remote))
    with pytest.raises(InputError, match="needs code of its own, which is not run here"):
        load_verifier(str(silent), device="cpu")
