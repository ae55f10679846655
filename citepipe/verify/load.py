"""From the name of a verifier to the verifier."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from citepipe.errors import InputError
from citepipe.verify.base import CachedVerifier, DecisionCache, Pair, Verifier

if TYPE_CHECKING:
    from citepipe.verify.models import BatchedVerifier

_SETTINGS = {
    "seq2seq": ("template", "dtype", "revision"),
    "classifier": ("template", "dtype", "revision", "label", "threshold"),
}


def load_verifier(spec: str, cache: Path | None = None, device: str = "auto") -> Verifier:
    """Load a verifier; nothing heavy is imported unless it is a model.

    Args:
        spec: `lexical`; a model directory or hub id, perhaps with settings of `load_seq2seq` or
            `load_classifier` (`google/t5_xxl_true_nli_mixture?dtype=bfloat16&revision=main`);
            or `package.module:factory`, a class or function that returns a verifier, perhaps with
            `?argument`, the one string that it is called with, which runs that module's code.
        cache: an SQLite file where a model's decisions are kept. Other verifiers are quicker than
            a cache, or do not say by what their decisions can be told apart.
        device: where a model runs; `auto` takes a GPU if there is one.

    Raises:
        InputError: there is no such verifier, or its cache cannot be used.
    """
    check_spec(spec)
    target, _, argument = spec.partition("?")
    if target == "lexical":
        if argument:
            raise InputError(f"verifier {spec!r}: lexical takes no argument, got {argument!r}")
        from citepipe.verify.lexical import LexicalVerifier

        return LexicalVerifier()
    if ":" in target:
        return _from_factory(spec, target, argument)
    return _from_model(spec, target, argument, cache, device)


def check_spec(spec: str) -> None:
    """Raise InputError for a name that can be no verifier's: a model is a directory, or has its
    owner's name. Nothing is loaded and no network asked."""
    target = spec.partition("?")[0]
    if target != "lexical" and not {"/", ":"} & set(target) and not Path(target).exists():
        raise InputError(
            f"verifier {spec!r}: expected lexical, a model's directory, its OWNER/NAME at the hub, "
            "or package.module:function"
        )


def _from_model(spec: str, target: str, argument: str, cache: Path | None, device: str) -> Verifier:
    from citepipe.models.pretrained import kind_of

    listed = parse_qsl(argument, keep_blank_values=True)
    settings = dict(listed)
    if not target or len(settings) < len(listed) or (argument and not listed):
        raise InputError(f"verifier {spec!r}: expected a model and settings as ?name=value&...")
    kind = kind_of(target, settings.get("revision"))
    unknown = sorted(set(settings) - set(_SETTINGS[kind]))
    if unknown:
        raise InputError(
            f"verifier {spec!r}: unknown setting {unknown[0]!r} of a {kind} model, expected "
            f"{', '.join(_SETTINGS[kind])}"
        )
    # Before the model: it would be loaded in vain.
    kept = None if cache is None else DecisionCache(cache)
    from citepipe.verify import models

    load: Any = models.load_seq2seq if kind == "seq2seq" else models.load_classifier
    verifier: BatchedVerifier = load(target, device=device, **settings)
    return verifier if kept is None else CachedVerifier(verifier, kept)


def _from_factory(spec: str, target: str, argument: str) -> Verifier:
    module_name, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise InputError(f"verifier {spec!r}: expected package.module:function")
    # `os:system?...` would run a command before its result is seen to be no verifier.
    if module_name.partition(".")[0] in {*sys.stdlib_module_names, *sys.builtin_module_names}:
        raise InputError(f"verifier {spec!r}: {module_name} is part of Python, not of a verifier")
    with _one_line(spec, module_name):
        module = importlib.import_module(module_name)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise InputError(f"verifier {spec!r}: {module_name} has no function {attribute!r}")
    with _one_line(spec, attribute):
        verifier = factory(argument) if argument else factory()
    if not isinstance(verifier, Verifier):
        raise InputError(
            f"verifier {spec!r}: expected {attribute} to return a verifier, with a name and a "
            f"method entails, it returns {type(verifier).__name__}"
        )
    return _UsersVerifier(spec, verifier)


class _UsersVerifier:
    """A verifier from outside of this package, whose mistakes are one clear line."""

    def __init__(self, spec: str, verifier: Verifier) -> None:
        self._spec, self._verifier = spec, verifier
        self.name = verifier.name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._verifier, attribute)

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """See `Verifier.entails`."""
        with _one_line(self._spec, "entails"):
            decisions = list(self._verifier.entails(pairs))
        if len(decisions) != len(pairs):
            raise InputError(
                f"verifier {self._spec!r}: {len(decisions)} decisions on {len(pairs)} pairs"
            )
        return decisions


@contextmanager
def _one_line(spec: str, what: str) -> Iterator[None]:
    """An error in the code of a user's verifier as one line that says where it is."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        ours = (__file__, importlib.__file__)
        places = [
            f" ({place.filename}, line {place.lineno})"
            for place in traceback.extract_tb(error.__traceback__)
            if place.filename not in ours and not place.filename.startswith("<")
        ]
        first = next(iter(str(error).splitlines()), "")
        raise InputError(
            f"verifier {spec!r}: {what} fails with {type(error).__name__}: {first}"
            + "".join(places[-1:])
        ) from error
