"""What makes a stage stale: digests of its code and of everything that it is given.

An input that another stage makes counts by the digest of that stage, so that it is known before the
file is there: whatever changes at the beginning shows at once in all that follows from it.

A job that succeeds leaves a record of what it was made of. Where the record says the same as the
present, times of files count for nothing: a touched file may be the same, and an older one another.
Where it does not, the job depends on a file that is newer than all, so that it runs.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from snakemake.io import ancient
from snakemake.logging import logger

from citepipe.provenance import (
    STALE,
    code_of,
    code_of_own,
    digest_of,
    digest_of_path,
    read_record,
    record_of,
    versions,
)

NEWER = Path(".snakemake", "newer")
"""A file that is written as the workflow is read, so that stale jobs depend on something newer."""

OWN_CODE = "code of "
"""In front of a module's name among inputs: not a file, but what a user's own code does."""


class Wildcards(dict[str, str]):
    """The wildcards of a job, by attribute and as a mapping."""

    __getattr__ = dict.__getitem__


class Given(NamedTuple):
    """What a job is given, the same for all shards of a sample: its inputs by name, its parameters,
    and whether nothing has to run for the inputs."""

    inputs: dict[str, list[str]]
    values: dict[str, Any]
    is_settled: bool


class Stages:
    """All stages of a workflow, by what they make."""

    def __init__(self, results: str, forced: Callable[[], Any]) -> None:
        self.results, self.forced = results, forced
        self.makers: list[tuple[list[str], Collection[str], Callable[[Any], Given], Any]] = []
        self.maker_of = cache(self._maker_of)
        self.identity = cache(self._identity)
        self.is_settled = cache(self._is_settled)
        self.code_of = cache(code_of)
        self.warn = cache(logger.warning)

    def add(
        self,
        makes: list[str],
        script: str,
        code: Any,
        inputs: Mapping[str, Any],
        cfg: Any,
        systems: Collection[str] = (),
        absent: Any = (),
    ) -> tuple[Callable[[Any], dict[str, list[str]]], dict[str, Any]]:
        """Note what a stage depends on, for its rule's `input` (all in one function, as Snakemake
        takes a while for each) and `params`, which are returned.

        Args:
            makes: the patterns of its outputs.
            script: the file in workflow/scripts that runs it.
            code: the modules that do it, in one text (it and what follows: or functions of the
                wildcards).
            inputs: lists of paths by name.
            cfg: the values of the configuration that its results depend on.
            systems: whose outputs it makes, if the patterns have a system.
            absent: files without which its outputs are stale although they can be there.
        """
        known: dict[str, tuple[bool, bool]] = {}

        @cache
        def of_shards(**wildcards: str) -> Given:
            own = Wildcards(wildcards)
            found = {name: _at(value, own) for name, value in inputs.items()}
            made = {"code": self.code_of("stage.py", script, *_at(code, own).split())}
            for name, paths in found.items():
                # Shards of a sample are equal here, however many there are.
                made[name] = digest_of(list(dict.fromkeys(map(self.identity, paths))))
            # As a file has it, in a fixed order: Snakemake compares texts.
            text = json.dumps({"cfg": _at(cfg, own), "made_of": made}, sort_keys=True)
            is_settled = all(map(self.is_settled, chain(*found.values())))
            return Given(found, json.loads(text), is_settled)

        def given(wildcards: Any) -> Given:
            return of_shards(**{k: v for k, v in wildcards.items() if k != "scatteritem"})

        def state(wildcards: Any) -> tuple[bool, bool]:
            """Whether a job's output was made by its parameters, and all before it by theirs."""
            output = makes[0].format(**wildcards)
            if output not in known:
                record = read_record(record_of(self.results, output))
                with_others = record.pop("versions", {}) if isinstance(record, dict) else {}
                same = record == given(wildcards).values
                for name, version in with_others.items():
                    if same and version != versions().get(name):
                        self.warn(
                            f"{self.results} has what was made with {name} {version}, and is kept; "
                            f"here is {versions().get(name)}"
                        )
                same = same and not _at(absent, wildcards)
                known[output] = same, same and given(wildcards).is_settled
            return known[output]

        def files_of(wildcards: Any) -> dict[str, list[str]]:
            same, is_settled = state(wildcards)
            files = {
                name: [
                    ancient(path) if is_settled else path
                    for path in paths
                    if not path.startswith(OWN_CODE)
                ]
                for name, paths in given(wildcards).inputs.items()
            }
            # What is not there is made only if something that is stale asks for it.
            is_stale = not same and Path(makes[0].format(**wildcards)).exists()
            return files | {STALE: [str(NEWER)] if is_stale else []}

        patterns = [re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path)) for path in makes]
        self.makers.append((patterns, ("", *systems), given, state))
        return files_of, {
            "cfg": lambda wildcards: given(wildcards).values["cfg"],
            "made_of": lambda wildcards: given(wildcards).values["made_of"],
        }

    def _maker_of(self, path: str) -> tuple[str, Wildcards, Any, Any] | None:
        """What a stage makes that a path is, or is in, with its wildcards, and what knows its
        parameters and its state."""
        for place in (path, *map(str, Path(path).parents)):
            for patterns, systems, given, state in self.makers:
                for match in filter(None, (re.fullmatch(made, place) for made in patterns)):
                    wildcards = Wildcards(match.groupdict())
                    if wildcards.get("system", "") in systems:
                        return place, wildcards, given, state
        return None

    def _identity(self, path: str) -> str:
        """A digest of what a path holds or, if a stage makes it, of what that is made of."""
        if path.startswith(OWN_CODE):
            return code_of_own(path.removeprefix(OWN_CODE))
        maker = self.maker_of(path)
        if maker is None:
            return digest_of_path(Path(path))
        place, wildcards, given, _ = maker
        whole = str(Path(place).parent) if "scatteritem" in wildcards else place
        return digest_of([whole, given(wildcards).values])

    def _is_settled(self, path: str) -> bool:
        """Whether nothing has to run for a path: what is made of it need not look at its time.

        Snakemake does not ask jobs behind one that has to run for reasons of their own, so all of
        them must follow from it.
        """
        maker = self.maker_of(path)
        if maker is None or "scatteritem" in maker[1]:
            return True
        return not self.forced() and Path(path).exists() and bool(maker[3](maker[1])[1])


def _at(value: Any, wildcards: Any) -> Any:
    """A value that may be a function of the wildcards."""
    return value(wildcards) if callable(value) else value
