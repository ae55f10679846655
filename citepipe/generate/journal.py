"""Completions on disk as they come, so that a run that is cut off does not lose them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from citepipe.generate.completion import Completion, Done, Generator, Request
from citepipe.runstate import append_journal, read_journal

SECONDS_UNWRITTEN = 1.0
"""What came within this time may be lost."""


class Journal:
    """A generator that writes down what another one completes, and does not ask for it again.

    Args:
        path: the file; what it has of an earlier run is known. What ends a segment is not part of
            a request's name in it, so it belongs to one stage with one configuration.
        generator: asked for what is not known.
    """

    def __init__(self, path: Path, generator: Generator) -> None:
        self._path = path
        self._generator = generator
        self._known: dict[str, Completion] = {}
        self._unwritten: list[list[Any]] = []
        self._written = time.monotonic()
        for record in read_journal(path):
            try:
                name, ids, text, offsets, log_probs, finish = record
                spans = tuple((start, end) for start, end in offsets)
                self._known[name] = Completion(tuple(ids), text, spans, tuple(log_probs), finish)
            except (TypeError, ValueError):
                # Somebody else's line: what it stands for is asked for again.
                continue

    @property
    def capacity(self) -> int:
        """That of the generator behind it."""
        return self._generator.capacity

    @property
    def known(self) -> int:
        """Completions that are written down."""
        return len(self._known)

    def forget(self) -> None:
        """Empty the file: what was completed has been used."""
        self._known, self._unwritten = {}, []
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the generator behind it."""
        self._generator.close()

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""
        names = [list(_names(request)) for request in requests]
        found = [[self._known.get(name) for name in own] for own in names]
        if done is not None:
            for number, own in enumerate(found):
                for sample, completion in enumerate(own):
                    if completion is not None:
                        done(number, sample, completion)
        asked: list[Request] = []
        places: list[tuple[int, int]] = []
        for number, (request, own) in enumerate(zip(requests, found, strict=True)):
            missing = [sample for sample, completion in enumerate(own) if completion is None]
            if len(missing) == request.samples:
                asked.append(request)
                places.append((number, 0))
                continue
            for sample in missing:
                asked.append(replace(request, samples=1, first=request.first + sample))
                places.append((number, sample))

        def note(number: int, sample: int, completion: Completion) -> None:
            number, sample = places[number][0], places[number][1] + sample
            found[number][sample] = completion
            self._note(names[number][sample], completion)
            if done is not None:
                done(number, sample, completion)

        try:
            if asked:
                self._generator.generate(asked, note, keep)
        finally:
            self._write()
        return [[completion for completion in own if completion is not None] for own in found]

    def _note(self, name: str, completion: Completion) -> None:
        self._known[name] = completion
        self._unwritten.append([name, *astuple(completion)])
        if time.monotonic() - self._written > SECONDS_UNWRITTEN:
            self._write()

    def _write(self) -> None:
        if self._unwritten:
            append_journal(self._path, self._unwritten)
        self._unwritten, self._written = [], time.monotonic()


def _names(request: Request) -> Iterator[str]:
    """A name for each sample of a request: a digest of all that it depends on."""
    asked = [request.prompt, request.prefix, request.max_new_tokens, request.stop]
    asked += [request.key, astuple(request.sampling)]
    whole = hashlib.sha256(json.dumps(asked).encode())
    for sample in range(request.first, request.first + request.samples):
        own = whole.copy()
        own.update(f"/{sample}".encode())
        yield own.hexdigest()[:32]
