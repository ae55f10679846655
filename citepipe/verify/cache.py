"""Decisions that are kept on disk."""

from __future__ import annotations

import fcntl
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from citepipe.errors import InputError
from citepipe.progress import say
from citepipe.verify.base import ByVerdict, Pair, Provenance

if TYPE_CHECKING:
    from citepipe.verify.models import BatchedVerifier

T = TypeVar("T")

_WAIT_SECONDS = 120.0
_STORE_SECONDS = 1.0
_UNDECIDED = 2


class DecisionCache:
    """An SQLite file of decisions under the sha256 of a verifier's identity and the pair.

    It is made if need be. Several processes may read and write it at once; each waits its turn.
    Of one that is damaged, and called `.sqlite`, a new one is begun; the old one is set aside, and
    that is said. A file that cannot be opened, read or written, or is no cache, is an InputError.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._do("cannot be used as a verifier cache", lambda _: None)

    def _do(self, what: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work on the database, if need be on a new one; `what` an InputError says."""
        with self._lock:
            try:
                return self._tried(work)
            except (OSError, sqlite3.Error) as error:
                raise InputError(f"{self.path}: {what}: {error}") from None

    def _tried(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._opened())
        except sqlite3.DatabaseError as error:
            self._check_damaged(error)
        with self.path.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            try:
                # Another process may have begun a new one meanwhile.
                return work(self._opened())
            except sqlite3.DatabaseError as error:
                self._check_damaged(error)
                self._set_aside(error)
            return work(self._opened())

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Rewards are also asked for in threads, one of which is here at a time.
            self._connection = sqlite3.connect(
                self.path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
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

    def _check_damaged(self, error: sqlite3.DatabaseError) -> None:
        """Close what is damaged; raise any other error."""
        # Damage has no class of its own, and all else has one.
        if type(error) is not sqlite3.DatabaseError or self.path.suffix != ".sqlite":
            raise error
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _set_aside(self, error: sqlite3.Error) -> None:
        say(f"{self.path}: {error}; it is kept as {self.path.name}.damaged, a new one begun")
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


def decision_key(identity: str, pair: Pair) -> bytes:
    """sha256 of identity, premise and hypothesis, each behind its length in bytes."""
    digest = hashlib.sha256()
    for part in (identity, pair.premise, pair.hypothesis):
        # An answer may hold a lone surrogate, half of a character that was cut.
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.digest()


class NotedModel:
    """A model that is loaded for the first pair that nobody has decided; what it says of itself is
    noted in the cache under `key`, a digest of all that this follows from."""

    name: str
    identity: str
    provenance: Provenance
    question_first: bool
    graded: bool

    def __init__(self, load: Callable[[], BatchedVerifier], cache: DecisionCache, key: str) -> None:
        self._load, self._cache, self._key = load, cache, key
        noted = cache.said_of(key)
        vars(self).update(json.loads(noted) if noted else _said(self._model))

    @cached_property
    def _model(self) -> BatchedVerifier:
        model = self._load()
        self._cache.note(self._key, json.dumps(_said(model)))
        return model

    def decisions(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[Pair, bool | None]]]:
        """See `BatchedVerifier.decisions`."""
        if self.identity != self._model.identity:
            raise InputError(f"verifier {self.name}: it has changed meanwhile; run this again")
        return self._model.decisions(pairs)

    def supports(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[Pair, float]]]:
        """See `BatchedVerifier.supports`; they are not kept."""
        return self._model.supports(pairs)


def _said(model: BatchedVerifier) -> dict[str, Any]:
    return {name: getattr(model, name) for name in NotedModel.__annotations__}


class CachedVerifier(ByVerdict):
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

    def verdicts(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """See `ByVerdict.verdicts`; equal pairs are queried once."""
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
