"""Completions on disk as they come, so that a run that is cut off does not lose them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, replace
from pathlib import Path

from citepipe.generate.completion import Completion, Done, Generator, Request
from citepipe.provenance import digest_of
from citepipe.runstate import read_journal


class Journal:
    """A generator that writes down what another one completes, and does not request it again.

    Args:
        path: the file; what it has of an earlier run is known. What ends an answer or a segment
            is not part of a request's name in it, so it belongs to one stage with one
            configuration.
        generator: completes what is not known.
    """

    def __init__(self, path: Path, generator: Generator) -> None:
        self._path = path
        self._generator = generator
        self._known: dict[str, Completion] = {}
        for record in read_journal(path):
            # Somebody else's line is passed over: what it stands for is completed again.
            with suppress(TypeError, ValueError):
                name, ids, text, offsets, log_probs, finish = record
                spans = tuple((start, end) for start, end in offsets)
                self._known[name] = Completion(tuple(ids), text, spans, tuple(log_probs), finish)

    @property
    def capacity(self) -> int:
        """That of the generator behind it."""
        return self._generator.capacity

    @property
    def known(self) -> int:
        """Completions that are written down."""
        return len(self._known)

    def forget(self) -> None:
        """Remove the file: what was completed has been used."""
        self._known = {}
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the generator behind it."""
        self._generator.close()

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""
        names = [_names(request) for request in requests]
        open_requests: list[Request] = []
        places: list[tuple[int, int]] = []
        for number, (request, own) in enumerate(zip(requests, names, strict=True)):
            if self._known.keys().isdisjoint(own):
                open_requests.append(request)
                places.append((number, 0))
                continue
            for sample, name in enumerate(own):
                if name not in self._known:
                    open_requests.append(replace(request, samples=1, first=request.first + sample))
                    places.append((number, sample))
                elif done is not None:
                    done(number, sample, self._known[name])

        def note(number: int, sample: int, completion: Completion) -> None:
            number, sample = places[number][0], places[number][1] + sample
            name = names[number][sample]
            self._known[name] = completion
            line = json.dumps([name, *astuple(completion)], ensure_ascii=False)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
            if done is not None:
                done(number, sample, completion)

        if open_requests:
            self._generator.generate(open_requests, note, keep)
        return [[self._known[name] for name in own] for own in names]


def _names(request: Request) -> list[str]:
    """A name for each sample of a request, by a digest of all that it depends on."""
    content = [request.prompt, request.prefix, request.max_new_tokens, request.key]
    digest = digest_of([*content, astuple(request.sampling)])
    return [
        f"{digest}/{sample}" for sample in range(request.first, request.first + request.samples)
    ]
