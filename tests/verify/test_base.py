import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.models import pretrained
from citepipe.verify import base
from citepipe.verify.base import Pair
from citepipe.verify.load import load_verifier
from tests.verify.tiny_models import make_t5


def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A module `mine` that can be imported."""
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    importlib.invalidate_caches()


VERIFIER = """
class Made:
    identity = "made"
    def __init__(self, argument="nothing"):
        self.name = argument
    def entails(self, pairs):
        return [{decision} for premise, hypothesis in pairs]{slice}
"""


def test_a_factory_is_called_with_what_follows_the_question_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module(tmp_path, monkeypatch, VERIFIER.format(decision="hypothesis in premise", slice=""))
    assert load_verifier("mine:Made").name == "nothing"
    verifier = load_verifier("mine:Made?a/b.json")
    assert (verifier.name, base.identity_of(verifier)) == ("a/b.json", "made")
    assert verifier.entails([Pair("ab", "a"), Pair("ab", "c")]) == [True, False]


def test_a_users_verifier_may_grade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = VERIFIER.format(decision="float(hypothesis)", slice="") + "    graded = True\n"
    module(tmp_path, monkeypatch, code)
    verifier: Any = load_verifier("mine:Made")
    pairs = [Pair("", number) for number in ("1", "0.5", "0")]
    assert (verifier.graded, verifier.verdicts(pairs)) == (True, [True, None, False])
    assert verifier.entails(pairs) == [True, False, False]
    with pytest.raises(InputError, match=r"expected 1, 0.5 or 0 for each pair, got 0.7"):
        verifier.entails([Pair("", "0.7")])


def test_whose_code_is_run_is_said_before_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module(tmp_path, monkeypatch, "raise SystemExit('ran')")
    with pytest.raises(SystemExit, match="ran"):
        load_verifier("mine:Made")
    said = "verifier 'mine:Made': the code of mine is run, with all that you may do\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def Made(:", r"mine fails with SyntaxError: .*mine.py, line 1"),
        ("import nowhere", r"mine fails with ModuleNotFoundError: .*'nowhere' \(.*mine.py, line 1"),
        ("made = 1", "mine has no function 'Made'"),
        ("def Made(): return 1 / 0", r"Made fails with ZeroDivisionError: .*mine.py, line 1\)"),
        ("def Made(a, b): pass", "Made fails with TypeError: .*missing 2 required"),
        ("def Made(): return 3", "expected a verifier, with a name and a method entails, got int"),
        (
            VERIFIER.format(decision="premise[9]", slice=""),
            r"entails fails with IndexError: .*line 7\)",
        ),
        (VERIFIER.format(decision="True", slice="[:1]"), "1 decisions on 2 pairs"),
        (
            VERIFIER.format(decision="0.7", slice=""),
            "expected True or False for each pair, got 0.7",
        ),
    ],
)
def test_a_mistake_in_a_users_verifier_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
):
    module(tmp_path, monkeypatch, code)
    with pytest.raises(InputError, match=message) as caught:
        load_verifier("mine:Made").entails([Pair("a", "b"), Pair("b", "c")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (":f", "expected package.module:function"),
        (".x:f", "expected package.module:function"),
        ("nowhere.at.all:f", "fails with ModuleNotFoundError: No module named 'nowhere'$"),
        ("citepipe.verify.base:factory", "has no function 'factory'"),
        ("lexical?x=1", "lexical takes no argument"),
        # No function of Python itself is called.
        *((f"{name}?false", "is part of Python, not of") for name in ("os:system", "posix:system")),
        ("nobody/nothing?dtype=float32&dtype=bfloat16", "expected a model and settings"),
        ("nobody/nothing?revision=v1", "neither a local directory nor a model of the hub"),
        (__file__, "not a model directory"),
        ("a" * 300, "expected lexical, a model's directory"),
    ],
)
def test_what_is_no_verifier_is_one_clear_line(spec: str, message: str):
    with pytest.raises(InputError, match=message):
        load_verifier(spec)


T5, BERT = '{"model_type": "t5"}', '{"model_type": "bert"}'
LLAMA = '{"model_type": "llama", "architectures": ["LlamaModel"]}'
WHOLE = "model.safetensors tokenizer.json"


@pytest.mark.parametrize(
    ("config", "files", "message"),
    [
        (None, "", "not a model directory, it has no config.json"),
        ("{", WHOLE, r"config\.json, line 1: expected JSON"),
        ("[]", WHOLE, r"config.json: expected a model's configuration"),
        ('{"model_type": "nothing-known"}', WHOLE, "config.json: "),
        (T5, "tokenizer.json", r"it has a config.json but no weights \(\*.safetensors\)"),
        (T5, "model.safetensors", "it has no tokenizer"),
        (
            LLAMA,
            WHOLE,
            "a decoder, or a classifier of sequences or tokens, its config.json says Llama",
        ),
        (BERT, WHOLE, "its config.json says a bert without architectures"),
    ],
)
def test_a_directory_that_is_no_verifier(
    tmp_path: Path, config: str | None, files: str, message: str
):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    for name in files.split():
        (tmp_path / name).write_text("{}" if name == "tokenizer.json" else "")
    with pytest.raises(InputError, match=message) as caught:
        load_verifier(str(tmp_path), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_used_is_found_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pretrained, "kind_of", lambda *_: "seq2seq")
    with pytest.raises(InputError, match="cannot be used as a verifier cache"):
        load_verifier("nobody/no-model", cache=tmp_path, device="cpu")


def test_the_identity_is_of_the_content(tmp_path: Path):
    """A copy decides alike; weights that were trained on are another model."""
    one, copy = tmp_path / "one", tmp_path / "copy"
    make_t5(one, ["0", "1"]).save_pretrained(one)
    shutil.copytree(one, copy)
    identity = base.identity_of(load_verifier(str(one), device="cpu"))
    again = load_verifier(str(copy), device="cpu")
    assert base.identity_of(again) == identity
    assert base.provenance_of(again)["model"] == str(copy)
    make_t5(copy, ["0", "1"], initializer_factor=2.0).save_pretrained(copy)
    other = base.identity_of(load_verifier(str(copy), device="cpu"))
    half = base.identity_of(load_verifier(f"{copy}?dtype=bfloat16", device="cpu"))
    assert len({identity, other, half}) == 3
