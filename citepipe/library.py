"""Answers scored, rewarded and judged, and rewards by token, as functions of plain rows.

Rows are those that files have ([scoring](../docs/scoring.md)): mappings with `question`, `docs`,
`output` and whatever references there are, one of them, or the path of a file. A verifier is named
as on the command line, or an object with a `name` and a method `entails`. `more` are the options of
`ScoreOptions` or `RewardOptions` by name. `citepipe.errors.InputError` is raised for rows, names,
options and verifiers that do not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from citepipe.data.example import Example
from citepipe.data.files import AnswerFile, read_answers
from citepipe.data.validate import validated
from citepipe.options import Options, RewardOptions, ScoreOptions
from citepipe.rewards import Placement, Rewarder, place, reward_file
from citepipe.scoring.files import Scorer
from citepipe.verify.base import Verifier
from citepipe.verify.load import checked, load_verifier

_O = TypeVar("_O", bound=Options)
Row = Mapping[str, Any]
Rows = Sequence[Row] | Row | Path | str


def score(
    rows: Rows,
    verifier: Verifier | str = "lexical",
    *,
    dataset: str | None = None,
    rules: str | None = None,
    cache: Path | None = None,
    device: str = "auto",
    **more: Any,
) -> dict[str, Any]:
    """The scores of `citepipe score`: `metrics`, `intervals`, `counts`, `per_example`, ….

    `dataset` is that of rows that do not say theirs; `rules` are `alce` or `sane`, by default what
    suits the dataset; `cache` is the file that keeps a model's decisions, which runs on `device`.
    """
    file = _file(rows, dataset)
    options = options_of(ScoreOptions, rules=rules, **more)
    return Scorer(file, options, device).under(loaded(verifier, cache, device))


def reward(
    rows: Rows,
    verifier: Verifier | str = "lexical",
    *,
    dataset: str | None = None,
    cache: Path | None = None,
    device: str = "auto",
    **more: Any,
) -> dict[str, Any]:
    """The rewards of `citepipe reward`: `per_example` with every verdict, `rewards` on characters
    and `totals`, and their `means`. Arguments as in `score`."""
    options = options_of(RewardOptions, **more)
    return reward_file(_file(rows, dataset), loaded(verifier, cache, device), options)


def judge(
    rows: Rows,
    verifier: Verifier | str = "lexical",
    *,
    dataset: str | None = None,
    cache: Path | None = None,
    device: str = "auto",
    **more: Any,
) -> list[dict[str, Any]]:
    """Per row its `id`, `statements` (supported or not), `citations` (right or wrong) and `gold`
    answers (hit or not), with their places in the answer, by the sane rules. Arguments as in
    `score`."""
    judged = reward(rows, verifier, dataset=dataset, cache=cache, device=device, **more)
    names = ("id", "statements", "citations", "gold")
    return [{name: own[name] for name in names} for own in judged["per_example"]]


def token_rewards(
    text: str,
    offsets: Sequence[tuple[int, int]],
    row: Row,
    verifier: Verifier | str = "lexical",
    *,
    placement: Placement = "fine_grained",
    dataset: str | None = None,
    cache: Path | None = None,
    device: str = "auto",
    **more: Any,
) -> list[float]:
    """One reward per token of an answer to a row's question, for a training of your own.

    `offsets` are the characters `[start, end)` of `text` that each sampled token wrote, the end of
    sequence an empty span (`citepipe.rewards.place`). For many answers at a time, which a model
    wants, there are `citepipe.rewards.Rewarder` and `place`.
    """
    example = Example.from_row({**row, "output": text}, "row", dataset, own_as="own")
    rewarder = Rewarder(loaded(verifier, cache, device), options_of(RewardOptions, **more))
    [rewards] = rewarder.spans([example], [text])
    return place(rewards, offsets, placement)


def options_of(kind: type[_O], **given: Any) -> _O:
    """Options by name."""
    return validated(TypeAdapter(kind), given, kind.__name__)


def _file(rows: Rows, dataset: str | None) -> AnswerFile:
    if isinstance(rows, Mapping):
        return read_answers(rows.get("data", [rows]), dataset)
    return read_answers(Path(rows) if isinstance(rows, str) else rows, dataset)


def loaded(verifier: Verifier | str, cache: Path | None, device: str) -> Verifier:
    """A verifier by its spec, once for all calls, or one that is there already."""
    if isinstance(verifier, str):
        return _kept(verifier, cache, device)
    return checked(type(verifier).__name__, verifier)


_kept = lru_cache(maxsize=4)(load_verifier)
