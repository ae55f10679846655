"""How much is generated, for progress and for the line that a stage ends with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from citepipe.generate.completion import Completion, Done, Generator, Request


class Counting:
    """A generator that counts what another one completes.

    Args:
        generator: whose completions are counted.
        tell: called after each.

    Attributes:
        completions: how many there were.
        tokens: of them all.
    """

    def __init__(self, generator: Generator, tell: Callable[[], None]) -> None:
        self._generator = generator
        self._tell = tell
        self.completions = self.tokens = 0

    @property
    def capacity(self) -> int:
        """That of the generator behind it."""
        return self._generator.capacity

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""

        def count(number: int, sample: int, completion: Completion) -> None:
            self.completions += 1
            self.tokens += len(completion.token_ids)
            if done is not None:
                done(number, sample, completion)
            self._tell()

        return self._generator.generate(requests, count, keep)

    def close(self) -> None:
        """Close the generator behind it."""
        self._generator.close()
