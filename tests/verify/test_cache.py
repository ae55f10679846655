"""Decisions on disk: kept, resumed, written by several at once, damaged."""

import hashlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from citepipe.errors import InputError
from citepipe.verify import cache
from citepipe.verify.base import Pair
from citepipe.verify.cache import CachedVerifier, DecisionCache, decision_key


class Counting:
    """Entailed is a hypothesis that its premise contains. Decides two pairs a batch, in an order of
    its own, may die before a batch, and keeps what it received."""

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


def test_keys_stay_as_they_are_in_files_of_before():
    """Of every part its length in eight bytes, and its bytes: 1 m, 1 x, 2 é."""
    parts = b"".join(bytes([0] * 7 + [len(part)]) + part for part in (b"m", b"x", b"\xc3\xa9"))
    assert decision_key("m", Pair("x", "é")) == hashlib.sha256(parts).digest()
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
    assert verifier.computed == 3


def test_a_killed_process_loses_no_more_than_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """While the verifier is at its third batch, a second process finds the first two."""
    seconds = iter(range(0, 1000, 2))
    monkeypatch.setattr(cache.time, "monotonic", lambda: next(seconds))
    path, found = tmp_path / "cache.sqlite", []
    pairs = [Pair(str(i), "4") for i in range(6)]

    class Looking(Counting):
        def entails(self, pairs: Sequence[Pair]) -> list[bool]:
            keys = [decision_key(self.identity, Pair(str(i), "4")) for i in range(6)]
            found.append(len(DecisionCache(path).get(keys)))
            return super().entails(pairs)

    CachedVerifier(Looking(), DecisionCache(path)).entails(pairs)
    assert found == [0, 2, 4]


@pytest.mark.parametrize("content", [None, "no database " * 20])
def test_processes_write_at_once(tmp_path: Path, content: str | None):
    """To a new cache, and to one that all of them find damaged: one of them sets it aside."""
    code = """
import sys
from citepipe.verify.base import Pair
from citepipe.verify.cache import DecisionCache, decision_key
cache = DecisionCache(sys.argv[1])
for i in range(50):
    key = decision_key("m", Pair(sys.argv[2], str(i)))
    cache.put([(key, True)])
    assert cache.get([key]) == {key: True}
"""
    path, workers = tmp_path / "cache.sqlite", "abcdefgh"
    if content is not None:
        path.write_text(content)
    command = [sys.executable, "-c", code, str(path)]
    children = [subprocess.Popen([*command, worker]) for worker in workers]
    assert [child.wait() for child in children] == [0] * 8
    keys = [decision_key("m", Pair(worker, str(i))) for worker in workers for i in range(50)]
    assert DecisionCache(path).get(keys) == dict.fromkeys(keys, True)
    aside = tmp_path / "cache.sqlite.damaged"
    assert (aside.read_text() if aside.exists() else None) == content


KEYS = [decision_key("m", Pair("premise", str(i))) for i in range(2000)]


def damaged(path: Path) -> None:
    cache = DecisionCache(path)
    cache.put((key, True) for key in KEYS)
    cache._connection.close()
    path.write_bytes(path.read_bytes()[:4096].ljust(path.stat().st_size, b"\xff"))


def with_words(path: Path) -> None:
    DecisionCache(path).put([(KEYS[7], "no")])  # type: ignore[list-item]


def of_somebody_else(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE decisions (who TEXT)")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("no database " * 20), "cannot be used as a verifier cache"),
        (lambda path: path.mkdir(), "cannot be used as a verifier cache"),
        (of_somebody_else, "cannot be used as a verifier cache: no such column"),
        (damaged, r"my\.notes: decisions cannot be read"),
        (with_words, r"my\.notes: decisions .*: expected decisions of 0 or 1, got 'no'"),
    ],
)
def test_a_file_that_is_no_cache_is_one_clear_line(
    tmp_path: Path, make: Callable[[Path], object], message: str
):
    path = tmp_path / "my.notes"
    make(path)
    with pytest.raises(InputError, match=message):
        DecisionCache(path).get(KEYS)


@pytest.mark.parametrize("make", [damaged, with_words])
def test_a_damaged_cache_is_set_aside_and_begun_anew(
    tmp_path: Path, make: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "cache.sqlite"
    make(path)
    cache, before = DecisionCache(path), path.read_bytes()
    assert cache.get(KEYS) == {}
    assert capsys.readouterr().err.count("it is kept as cache.sqlite.damaged, a new one begun") == 1
    cache.put([(KEYS[0], True)])
    assert DecisionCache(path).get(KEYS) == {KEYS[0]: True}
    assert path.with_name("cache.sqlite.damaged").read_bytes() == before


def test_a_folder_that_cannot_be_made_and_a_disk_that_is_full(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be used as a verifier cache"):
        DecisionCache(tmp_path / "file" / "cache.sqlite")
    cache = DecisionCache(tmp_path / "cache.sqlite")
    cache._connection.execute("PRAGMA max_page_count = 3")
    pairs = [Pair("a", str(i)) for i in range(2000)]
    with pytest.raises(InputError, match=r"cache\.sqlite: decisions cannot be stored: .*full"):
        CachedVerifier(Counting(), cache).entails(pairs)
