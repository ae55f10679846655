"""What a verifier is, how one is found by its name, and decisions that are kept on disk."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from citepipe.errors import InputError

if TYPE_CHECKING:
    from citepipe.verify.load import NotedModel

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
    A file that cannot be opened, read or written, or is no cache, is an InputError.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with self._complaint("cannot be used as a verifier cache"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, _WAIT_SECONDS, isolation_level=None)
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

    @contextmanager
    def _complaint(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{self.path}: {what}: {error}") from None

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bool | None]:
        """The decisions that are known among `keys`; None for what a model left undecided."""
        query = "SELECT entailed FROM decisions WHERE key = ?"
        known: dict[bytes, bool | None] = {}
        with self._complaint("decisions cannot be read (delete the file to begin a new cache)"):
            for key in keys:
                for (entailed,) in self._connection.execute(query, [key]):
                    if entailed not in (0, 1, _UNDECIDED):
                        raise InputError(
                            f"{self.path}: expected decisions of 0 or 1, got {entailed!r} (delete "
                            "the file to begin a new cache)"
                        )
                    known[key] = None if entailed == _UNDECIDED else bool(entailed)
        return known

    def said_of(self, model: str) -> str | None:
        """What was noted of a model."""
        with self._complaint("notes cannot be read (delete the file to begin a new cache)"):
            query = "SELECT said FROM models WHERE key = ?"
            found = self._connection.execute(query, [model]).fetchone()
        return None if found is None else str(found[0])

    def note(self, model: str, said: str) -> None:
        """Note of a model what it need not be loaded again to know."""
        with self._complaint("notes cannot be stored"):
            self._connection.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", [model, said])

    def put(self, decisions: Iterable[tuple[bytes, bool | None]]) -> None:
        """Store decisions, all or none."""
        with self._complaint("decisions cannot be stored"), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT OR REPLACE INTO decisions VALUES (?, ?)",
                ((key, _UNDECIDED if own is None else own) for key, own in decisions),
            )


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
