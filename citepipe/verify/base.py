"""What a verifier is, how one is found by its name, and decisions that are kept on disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from citepipe.errors import InputError
from citepipe.progress import say

if TYPE_CHECKING:
    from citepipe.verify.load import NotedModel

T = TypeVar("T")
Provenance = dict[str, str | int | float | None]

_WAIT_SECONDS = 120.0
_STORE_SECONDS = 1.0
_UNDECIDED = 2


class Pair(NamedTuple):
    """Does the premise (cited passages, or an answer) entail the hypothesis (a statement)?"""

    premise: str
    hypothesis: str


@runtime_checkable
class Verifier(Protocol):
    """Decides entailment for many pairs at once.

    A verifier may also have `identity: str`, all that its decisions depend on, by which they can
    be cached; `provenance: Provenance`, what a file of scores says of it; and
    `question_first: bool`, which says that it was trained on claims with the question in front.
    """

    @property
    def name(self) -> str:
        """What results are labelled with."""

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """One decision per pair, in order."""


def identity_of(verifier: Verifier) -> str:
    """All that the decisions of a verifier depend on, as far as it says."""
    identity: str = getattr(verifier, "identity", verifier.name)
    return identity


def provenance_of(verifier: Verifier) -> Provenance:
    """What a file of scores says of a verifier, as far as it says."""
    provenance: Provenance = getattr(verifier, "provenance", {"kind": verifier.name})
    return provenance


def decide(verifier: Verifier, pairs: Iterable[Pair], known: dict[Pair, bool]) -> None:
    """Add to `known` the decisions on those pairs that it lacks, each queried once."""
    unknown = [pair for pair in dict.fromkeys(pairs) if pair not in known]
    if unknown:
        known.update(zip(unknown, verifier.entails(unknown), strict=True))


class DecisionCache:
    """An SQLite file of decisions under the sha256 of a verifier's identity and the pair.

    It is made if need be. Several processes may read and write it at once; each waits its turn.
    Of one that is damaged, and called `.sqlite`, a new one is begun; the old one is set aside, and
    that is said. A file that cannot be opened, read or written, or is no cache, is an InputError.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None
        self._do("cannot be used as a verifier cache", lambda _: None)

    def _do(self, what: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work on the database, if need be on a new one; `what` an InputError says."""
        try:
            # More than once where other processes set a damaged file aside at the same time.
            for _ in range(9):
                try:
                    return work(self._opened())
                except FileNotFoundError:
                    self._close()
                except sqlite3.DatabaseError as error:
                    # Damage has no class of its own, and all else has one.
                    if type(error) is not sqlite3.DatabaseError or self.path.suffix != ".sqlite":
                        raise
                    self._close()
                    with suppress(FileNotFoundError):
                        self._set_aside(error)
            return work(self._opened())
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{self.path}: {what}: {error}") from None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            before = self.path.stat() if self.path.exists() else None
            self._connection = sqlite3.connect(self.path, _WAIT_SECONDS, isolation_level=None)
            self._file = self.path.stat()
            if before is not None and not os.path.samestat(before, self._file):
                raise FileNotFoundError(errno.ENOENT, "it was set aside meanwhile")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS decisions "
                "(key BLOB PRIMARY KEY, entailed INTEGER NOT NULL) WITHOUT ROWID"
            )
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS models (key TEXT PRIMARY KEY, said TEXT NOT NULL)"
            )
            # Somebody else's database may have tables of that name.
            for columns in ("key, entailed FROM decisions", "key, said FROM models"):
                self._connection.execute(f"SELECT {columns} LIMIT 0")
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _set_aside(self, error: sqlite3.Error) -> None:
        """Give the damaged file another name, unless another process has done so already."""
        with self.path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if os.path.samestat(self._file, self.path.stat()):
                say(
                    f"{self.path}: {error}; it is kept as {self.path.name}.damaged, a new one begun"
                )
                # What a writer left unfinished belongs to it too.
                for name in (f"{self.path.name}-journal", self.path.name):
                    with suppress(FileNotFoundError):
                        self.path.with_name(name).replace(
                            self.path.with_name(name.replace(".sqlite", ".sqlite.damaged", 1))
                        )

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bool | None]:
        """The decisions that are known among `keys`; None for what a model left undecided."""

        def known(database: sqlite3.Connection) -> dict[bytes, bool | None]:
            query = "SELECT key, entailed FROM decisions WHERE key = ?"
            found = dict(row for key in keys for row in database.execute(query, [key]))
            if odd := [own for own in found.values() if own not in (0, 1, _UNDECIDED)]:
                raise sqlite3.DatabaseError(f"expected decisions of 0 or 1, got {odd[0]!r}")
            return {k: None if own == _UNDECIDED else bool(own) for k, own in found.items()}

        return self._do("decisions cannot be read (delete the file to begin a new cache)", known)

    def said_of(self, model: str) -> str | None:
        """What was noted of a model."""
        query = "SELECT said FROM models WHERE key = ?"
        found = self._do(
            "notes cannot be read (delete the file to begin a new cache)",
            lambda database: database.execute(query, [model]).fetchone(),
        )
        return None if found is None else str(found[0])

    def notes(self, prefix: str) -> dict[str, str]:
        """All that was noted under keys that begin so."""
        query = "SELECT key, said FROM models WHERE substr(key, 1, ?) = ?"
        return self._do(
            "notes cannot be read (delete the file to begin a new cache)",
            lambda database: dict(database.execute(query, [len(prefix), prefix])),
        )

    def note(self, model: str, said: str) -> None:
        """Note of a model what it need not be loaded again to know, or need not say again."""
        command = "INSERT OR REPLACE INTO models VALUES (?, ?)"
        self._do(
            "notes cannot be stored", lambda database: database.execute(command, [model, said])
        )

    def put(self, decisions: Iterable[tuple[bytes, bool | None]]) -> None:
        """Store decisions, all or none."""
        rows = [(key, _UNDECIDED if own is None else own) for key, own in decisions]

        def store(database: sqlite3.Connection) -> None:
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.executemany("INSERT OR REPLACE INTO decisions VALUES (?, ?)", rows)

        self._do("decisions cannot be stored", store)


class CachedVerifier:
    """A verifier that queries another one only for what the cache does not know: of `computed`
    distinct pairs so far.

    Decisions are stored about every second, so that a killed run loses no more than that and the
    batch it was at.
    """

    def __init__(self, verifier: NotedModel, cache: DecisionCache) -> None:
        self.name, self.computed = verifier.name, 0
        self._verifier, self._cache = verifier, cache

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._verifier, attribute)

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """One decision per pair; equal pairs are queried once."""
        return list(map(bool, self.verdicts(pairs)))

    def verdicts(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """The same, None for what is undecided."""
        identity = self._verifier.identity
        keys = {pair: decision_key(identity, pair) for pair in dict.fromkeys(pairs)}
        known = self._cache.get(list(keys.values()))
        unknown = [pair for pair, key in keys.items() if key not in known]
        unstored: dict[bytes, bool | None] = {}
        stored_at = time.monotonic()
        try:
            for batch in self._verifier.decisions(unknown) if unknown else ():
                self.computed += len(batch)
                unstored |= {keys[pair]: entailed for pair, entailed in batch}
                known |= unstored
                if time.monotonic() - stored_at >= _STORE_SECONDS:
                    self._cache.put(unstored.items())
                    unstored, stored_at = {}, time.monotonic()
        finally:
            # What was decided before an interruption is kept too.
            if unstored:
                self._cache.put(unstored.items())
        return [known[keys[pair]] for pair in pairs]


def decision_key(identity: str, pair: Pair) -> bytes:
    """sha256 of identity, premise and hypothesis, each behind its length in bytes."""
    digest = hashlib.sha256()
    for part in (identity, pair.premise, pair.hypothesis):
        # An answer may hold a lone surrogate, half of a character that was cut.
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.digest()
