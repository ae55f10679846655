import importlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from citepipe.errors import InputError
from citepipe.verify import base
from citepipe.verify.base import (
    CachedVerifier,
    DecisionCache,
    Pair,
    decide,
    decision_key,
    load_verifier,
)
from tests.verify.tiny_models import make_t5

# -- a verifier by its name


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
        return [{decision} for premise, hypothesis in pairs]
"""


def test_a_factory_is_called_with_what_follows_the_question_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module(tmp_path, monkeypatch, VERIFIER.format(decision="hypothesis in premise"))
    assert load_verifier("mine:Made").name == "nothing"
    verifier = load_verifier("mine:Made?a/b.json")
    assert (verifier.name, base.identity_of(verifier)) == ("a/b.json", "made")
    assert verifier.entails([Pair("ab", "a"), Pair("ab", "c")]) == [True, False]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def Made(:", r"mine fails with SyntaxError: .*mine.py, line 1"),
        ("import nowhere", r"mine fails with ModuleNotFoundError: .*'nowhere' \(.*mine.py, line 1"),
        ("made = 1", "mine has no function 'Made'"),
        ("def Made(): return 1 / 0", r"Made fails with ZeroDivisionError: .*mine.py, line 1\)"),
        ("def Made(a, b): pass", "Made fails with TypeError: .*missing 2 required"),
        ("def Made(): return 3", "expected Made to return a verifier.*it returns int"),
        (VERIFIER.format(decision="premise[9]"), r"entails fails with IndexError: .*line 7\)"),
        (VERIFIER.format(decision="1") + "[:1]\n", "1 decisions on 2 pairs"),
    ],
)
def test_a_mistake_in_a_users_verifier_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
):
    module(tmp_path, monkeypatch, code.replace("pairs]\n[:1]", "pairs][:1]"))
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
        ("nobody/nothing?dtype=float32&dtype=bfloat16", "expected a model and settings"),
    ],
)
def test_what_is_no_verifier_is_one_clear_line(spec: str, message: str):
    with pytest.raises(InputError, match=message):
        load_verifier(spec)


@pytest.mark.parametrize("spec", ["os:system", "posix:system", "subprocess:getoutput", "os.path:x"])
def test_functions_of_python_itself_are_not_called(spec: str, tmp_path: Path):
    with pytest.raises(InputError, match="is part of Python, not of a verifier"):
        load_verifier(f"{spec}?touch {tmp_path}/called")
    assert not (tmp_path / "called").exists()


def test_a_mistake_in_a_directory_is_found_without_torch(tmp_path: Path):
    code = (
        "import sys\n"
        "from citepipe.errors import InputError\n"
        "from citepipe.verify.base import load_verifier\n"
        "try:\n    load_verifier(sys.argv[1])\n"
        "except InputError as error:\n    print(error)\n"
        "sys.exit('torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert run.returncode == 0
    assert run.stdout == f"verifier {tmp_path}: not a model directory, it has no config.json\n"


T5, BERT = '{"model_type": "t5"}', '{"model_type": "bert"}'
LLAMA = '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
WHOLE = "model.safetensors tokenizer.json"


@pytest.mark.parametrize(
    ("config", "files", "message"),
    [
        ("{", WHOLE, r"config\.json, line 1: expected JSON"),
        ("[]", WHOLE, r"config.json: expected a model's configuration"),
        ('{"model_type": "nothing-known"}', WHOLE, "config.json: "),
        (T5, "tokenizer.json", r"it has a config.json but no weights \(\*.safetensors\)"),
        (T5, "pytorch_model.bin", r"pickled \(.bin\), not safetensors; convert"),
        (T5, "model.safetensors", "it has no tokenizer"),
        (LLAMA, WHOLE, "an encoder-decoder or a sequence classifier, its config.json says Llama"),
        (BERT, WHOLE, "its config.json says a bert without architectures"),
    ],
)
def test_a_directory_that_is_no_verifier(tmp_path: Path, config: str, files: str, message: str):
    (tmp_path / "config.json").write_text(config)
    for name in files.split():
        (tmp_path / name).write_text("{}" if name == "tokenizer.json" else "")
    with pytest.raises(InputError, match=message) as caught:
        load_verifier(str(tmp_path), device="cpu")
    assert "\n" not in str(caught.value)


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A configuration that names code of its own neither runs it nor asks on the terminal."""
    config = '{"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}'
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'called')!r}, 'w')")
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(InputError, match=r"config\.json: "):
        load_verifier(str(tmp_path), device="cpu")
    assert not (tmp_path / "called").exists()


def test_weights_that_are_damaged_or_another_models(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    make_t5(tmp_path, ["0", "1"]).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    save_file({key: value for key, value in weights.items() if key != name}, path)
    with pytest.raises(InputError, match=f"its weights lack {name}"):
        load_verifier(str(tmp_path), device="cpu")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="no model that loads"):
        load_verifier(str(tmp_path), device="cpu")
    with pytest.raises(InputError, match="not a model directory"):
        load_verifier(str(path))


def test_a_hub_that_cannot_be_reached():
    with pytest.raises(InputError, match="neither a local directory nor a model of the hub"):
        load_verifier("nobody/nothing-of-that-name?revision=v1")


def test_a_cache_that_cannot_be_used_is_found_before_the_model_is_loaded(tmp_path: Path):
    (tmp_path / "config.json").write_text(T5)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be used as a verifier cache"):
        load_verifier(str(tmp_path), cache=tmp_path / "config.json", device="cpu")


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


# -- decisions on disk


class Counting:
    """Entailed is a hypothesis that its premise contains; keeps what it received.

    Decides two pairs a batch, in an order of its own; may die before a batch.
    """

    name = "counting"

    def __init__(self, identity: str = "counting", dies_after: int | None = None) -> None:
        self.identity = identity
        self.dies_after = dies_after
        self.received: list[Pair] = []

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        self.received += pairs
        return [h in p for p, h in pairs]

    def decisions(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[Pair, bool]]]:
        order = sorted(pairs, reverse=True)
        for number, begin in enumerate(range(0, len(order), 2)):
            if number == self.dies_after:
                raise KeyboardInterrupt
            batch = order[begin : begin + 2]
            yield list(zip(batch, self.entails(batch), strict=True))


def test_decisions_that_are_known_are_not_queried():
    verifier = Counting()
    known = {Pair("a", "b"): True}
    decide(verifier, [Pair("a", "b"), Pair("a", "a"), Pair("a", "a")], known)
    assert known == {Pair("a", "b"): True, Pair("a", "a"): True}
    assert verifier.received == [Pair("a", "a")]


def test_each_pair_is_queried_once_ever(tmp_path: Path):
    path = tmp_path / "folder" / "cache.sqlite"
    pairs = [Pair("ab", "a"), Pair("ab", "c"), Pair("ab", "a")]
    first = Counting()
    assert CachedVerifier(first, DecisionCache(path)).entails(pairs) == [True, False, True]
    assert sorted(first.received) == pairs[:2]
    second = Counting()
    assert CachedVerifier(second, DecisionCache(path)).entails(pairs[1:]) == [False, True]
    assert second.received == []
    other = Counting("another identity")
    CachedVerifier(other, DecisionCache(path)).entails(pairs[:1])
    assert other.received == pairs[:1]


def test_keys_do_not_run_together():
    assert decision_key("m", Pair("ab", "c")) != decision_key("m", Pair("a", "bc"))
    assert len(decision_key("m", Pair("\ud800", ""))) == 32


def test_a_run_that_dies_is_resumed_where_it_was(tmp_path: Path):
    cache = DecisionCache(tmp_path / "cache.sqlite")
    pairs = [Pair(str(i), "4") for i in range(9)]
    with pytest.raises(KeyboardInterrupt):
        CachedVerifier(Counting(dies_after=3), cache).entails(pairs)
    resumed = Counting()
    verifier = CachedVerifier(resumed, cache)
    assert verifier.entails(pairs) == [i == 4 for i in range(9)]
    # 8 7 | 6 5 | 4 3 were kept.
    assert resumed.received == [Pair("2", "4"), Pair("1", "4"), Pair("0", "4")]
    assert (verifier.computed, verifier.cached) == (3, 6)


def test_a_killed_process_loses_no_more_than_a_second(tmp_path: Path):
    """Three batches, each more than a second of a clock; then no chance to tidy up."""
    code = """
import os, sys
from citepipe.verify import base
seconds = iter(range(0, 1000, 2))
base.time.monotonic = lambda: next(seconds)
class Verifier:
    name = identity = "m"
    def decisions(self, pairs):
        for pair in pairs[:3]:
            yield [(pair, True)]
        os._exit(9)
store = base.DecisionCache(sys.argv[1])
base.CachedVerifier(Verifier(), store).entails([base.Pair("p", str(i)) for i in range(5)])
"""
    path = tmp_path / "cache.sqlite"
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 9
    keys = [decision_key("m", Pair("p", str(i))) for i in range(5)]
    assert DecisionCache(path).get(keys) == dict.fromkeys(keys[:3], True)


def test_processes_write_at_once(tmp_path: Path):
    code = """
import sys
from citepipe.verify.base import DecisionCache, Pair, decision_key
cache = DecisionCache(sys.argv[1])
for begin in range(0, 200, 10):
    keys = [decision_key("m", Pair(sys.argv[2], str(i))) for i in range(begin, begin + 10)]
    cache.put((key, True) for key in keys)
    assert len(cache.get(keys)) == 10
"""
    path = tmp_path / "cache.sqlite"
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(path), worker]) for worker in "abc"
    ]
    assert [child.wait() for child in children] == [0, 0, 0]
    keys = [decision_key("m", Pair(worker, str(i))) for worker in "abc" for i in range(200)]
    assert DecisionCache(path).get(keys) == dict.fromkeys(keys, True)


KEYS = [decision_key("m", Pair("premise", str(i))) for i in range(2000)]


def filled(path: Path) -> None:
    cache = DecisionCache(path)
    cache.put((key, True) for key in KEYS)
    cache._connection.close()


def damaged(path: Path) -> None:
    filled(path)
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * (path.stat().st_size - 4096))


def with_words(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE decisions SET entailed = 'no' WHERE key = ?", [KEYS[7]])


def of_somebody_else(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE decisions (who TEXT)")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("no database " * 20), "cannot be used as a verifier cache"),
        (lambda path: path.mkdir(), "cannot be used as a verifier cache"),
        (of_somebody_else, "cannot be used as a verifier cache: no such column"),
        (damaged, r"cache\.sqlite: decisions cannot be read"),
        (with_words, r"cache\.sqlite: expected decisions of 0 or 1, got 'no'"),
    ],
)
def test_a_file_that_is_no_cache_is_one_clear_line(
    tmp_path: Path, make: Callable[[Path], object], message: str
):
    path = tmp_path / "cache.sqlite"
    make(path)
    with pytest.raises(InputError, match=message):
        DecisionCache(path).get(KEYS)


def test_a_folder_that_cannot_be_made_and_a_disk_that_is_full(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be used as a verifier cache"):
        DecisionCache(tmp_path / "file" / "cache.sqlite")
    cache = DecisionCache(tmp_path / "cache.sqlite")
    cache._connection.execute("PRAGMA max_page_count = 3")
    pairs = [Pair("a", str(i)) for i in range(2000)]
    with pytest.raises(InputError, match=r"cache\.sqlite: decisions cannot be stored: .*full"):
        CachedVerifier(Counting(), cache).entails(pairs)
