"""NLTK and spaCy without the libraries that they would only try."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIED = ("torch", "scipy", "sklearn")


@contextmanager
def lean_imports() -> Iterator[None]:
    """A block in which NLTK and spaCy are imported and do not find what takes most of their time
    and none of what is used here needs: three of four seconds.

    Until the process ends spaCy then holds that there is no torch, where nobody imported it before:
    its tokenizer needs none, a pipeline with a transformer would.
    """
    hidden = dict.fromkeys(name for name in _TRIED if name not in sys.modules)
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
