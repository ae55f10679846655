"""Verifiers in a row: each decides what it is sure of, and leaves the rest to the next one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from citepipe.errors import InputError
from citepipe.progress import say
from citepipe.verify.base import ByVerdict, Pair, Provenance, Verifier, identity_of, is_graded


@dataclass
class Level:
    """A verifier, whether it is one that leaves some pairs undecided, and what it has done: the
    pairs it received, those that it accepted and refused for good, and the seconds it took."""

    verifier: Verifier
    has_band: bool
    pairs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._before = self._so_far()

    def _so_far(self) -> tuple[int | None, float]:
        return getattr(self.verifier, "computed", None), getattr(self.verifier, "spent", 0.0)

    def account(self) -> dict[str, Any]:
        """All of it by name; how many of the pairs the cache knew, and what the others cost, where
        the verifier has a cache or prices."""
        (before, paid), (computed, spent) = self._before, self._so_far()
        return {
            "verifier": self.verifier.name,
            "pairs": self.pairs,
            **({} if computed is None else {"known": self.pairs - computed + (before or 0)}),
            "accepted": self.accepted,
            "refused": self.refused,
            "seconds": self.seconds,
            **({"cost": spent - paid} if spent else {}),
        }


class Cascade(ByVerdict):
    """A verifier of several levels: what one accepts is entailed, and so on with what is left.

    What a level with two thresholds refuses is not entailed, and what is between them goes on; of a
    level with one or none all that it does not accept goes on. The last one decides on all it gets.
    """

    def __init__(self, levels: Sequence[Level]) -> None:
        self.levels = levels
        verifiers = [level.verifier for level in levels]
        self.name = ">".join(verifier.name for verifier in verifiers)
        self.provenance: Provenance = {"kind": "cascade"}
        for number, level in enumerate(levels, start=1):
            self.provenance[f"level {number}"] = identity_of(level.verifier)
        self.identity = " > ".join(map(identity_of, verifiers))
        first = {bool(getattr(verifier, "question_first", False)) for verifier in verifiers}
        if len(first) > 1:
            raise InputError(
                f"verifier {self.name}: some read the question in front, others do not"
            )
        self.question_first, self.graded = first.pop(), is_graded(verifiers[-1])

    def verdicts(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """See `ByVerdict.verdicts`; None for what the last level leaves undecided."""
        return [verdict for verdict, _ in self.decided(pairs)]

    def decided(self, pairs: Sequence[Pair]) -> list[tuple[bool | None, int]]:
        """The verdict on each pair, and the level that it comes from, from 0."""
        known: dict[Pair, tuple[bool | None, int]] = {}
        left = list(dict.fromkeys(pairs))
        for number, level in enumerate(self.levels):
            began = time.perf_counter()
            decide: Any = getattr(level.verifier, "verdicts", level.verifier.entails)
            verdicts: dict[Pair, bool | None]
            verdicts = dict(zip(left, decide(left) if left else [], strict=True))
            level.seconds += time.perf_counter() - began
            level.pairs += len(left)
            is_last = number == len(self.levels) - 1
            final = (True, False) if level.has_band else (True,)
            left = [p for p, own in verdicts.items() if own not in final and not is_last]
            known |= {pair: (own, number) for pair, own in verdicts.items()}
            level.accepted += sum(own is True for own in verdicts.values())
            level.refused += sum(own is not True for own in verdicts.values()) - len(left)
        return [known[pair] for pair in pairs]


def band(supports: Sequence[float], labels: Sequence[bool], error: float) -> tuple[float, float]:
    """Two thresholds, as near to each other as may be, so that of what has more support than the
    upper one at most the share `error` is labelled unsupported, and of what has not more than the
    lower one at most that share supported: by the upper bound of 95 % (Clopper and Pearson 1934),
    for pairs that are drawn as these were. A bound is of its threshold; as the best of all is taken
    the error is exceeded more often (in up to a fourth of simulated draws, by a little)."""
    rows = sorted(zip(supports, labels, strict=True))
    ends = [0.0, *(support for support, _ in rows), 1.0]
    supported, n = list(accumulate((label for _, label in rows), initial=0)), len(rows)
    allowed = list(_allowed(error, n))
    # Behind so many pairs, where their support differs from the next one's.
    cuts = [(k, (ends[k] + ends[k + 1]) / 2) for k in range(n + 1) if ends[k] < ends[k + 1]]
    low = max((cut for k, cut in cuts if supported[k] <= allowed[k]), default=0.0)
    unsupported = [n - k - (supported[n] - own) for k, own in enumerate(supported)]
    high = min((cut for k, cut in cuts if unsupported[k] <= allowed[n - k]), default=1.0)
    return min(low, high), high


def _allowed(error: float, n: int) -> Iterator[int]:
    """Of samples of 0 to n pairs the number of wrong ones that at most one sample in 20 has, or has
    fewer, if the share `error` is wrong; -1 where more have none. With so many the upper bound is
    at most `error`."""
    # The chance of `wrong`, and of so many or fewer, from that of a sample that is smaller by one.
    wrong, chance, at_most = 0, 1.0, 1.0
    for size in range(1, n + 2):
        yield wrong - 1
        at_most -= error * chance
        chance *= (1 - error) * size / (size - wrong)
        if at_most <= 0.05:
            wrong += 1
            chance *= error / (1 - error) * (size - wrong + 1) / wrong
            at_most += chance


def calibrated(
    cascade: Cascade,
    specs: Sequence[str],
    pairs: Sequence[Pair],
    labels: Sequence[bool],
    error: float,
) -> str:
    """The spec of a cascade whose levels but the last have the thresholds of `band`, each on what
    those before it leave; a level that gives no probabilities stays as it is."""
    label_of = dict(zip(pairs, labels, strict=True))
    left, found = list(label_of), []
    for level, spec in zip(cascade.levels[:-1], specs[:-1], strict=True):
        supports: dict[Pair, float] = {}
        if left and hasattr(level.verifier, "supports"):
            supports = dict(own for batch in level.verifier.supports(left) for own in batch)
        if set(supports.values()) <= {0.0, 0.5, 1.0}:
            left = [p for p, own in zip(left, level.verifier.entails(left), strict=True) if not own]
            found.append(spec)
            continue
        low, high = band([supports[p] for p in left], [label_of[p] for p in left], error)
        # Rounded so that no pair changes sides but by a ten-thousandth.
        shown = f"threshold={min(low, 0.9999):.4f}-{min(high, 0.9999):.4f}"
        accepted = [label_of[pair] for pair in left if supports[pair] > high]
        refused = [label_of[pair] for pair in left if supports[pair] <= low]
        say(
            f"verifier {level.verifier.name}: above {high:.4f} {accepted.count(False)} of "
            f"{len(accepted)} pairs are unsupported, up to {low:.4f} {refused.count(True)} of "
            f"{len(refused)} supported: on either side at most {100 * error:g} %, by its "
            f"95 % bound; {len(left) - len(accepted) - len(refused)} go on"
        )
        left = [pair for pair in left if low < supports[pair] <= high]
        target, _, settings = spec.partition("?")
        others = [own for own in settings.split("&") if own and not own.startswith("threshold=")]
        found.append(f"{target}?{'&'.join([*others, shown])}")
    return ">".join([*found, specs[-1]])
