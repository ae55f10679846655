"""NLTK without the libraries that it would only try, and without a limit of time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# `norm` is none of a library, but might be a file of that name beside a script.
_TRIED = ("scipy", "sklearn", "norm")


@contextmanager
def lean_imports() -> Iterator[None]:
    """A block in which NLTK is imported and does not find what takes most of its time and none of
    what is used here needs."""
    hidden = dict.fromkeys(name for name in _TRIED if name not in sys.modules)
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
    # NLTK gives up on a match after five seconds by the clock, also where the process was stopped.
    sys.modules["nltk.redos"].DEFAULT_TIMEOUT = None  # type: ignore[attr-defined]
