"""From the name of a verifier in the configuration to the verifier."""

from __future__ import annotations

import importlib
from pathlib import Path
from urllib.parse import parse_qsl

from citepipe.errors import InputError
from citepipe.verify.base import Verifier


def load_verifier(spec: str, cache: Path | None = None, device: str = "auto") -> Verifier:
    """Load a verifier; nothing heavy is imported unless it is a model.

    Args:
        spec: `lexical`; a model directory or hub id, perhaps with settings of `load_seq2seq`
            (`google/t5_xxl_true_nli_mixture?dtype=bfloat16&revision=main`); or
            `package.module:factory`, a function that returns a verifier, perhaps with
            `?argument`, the one string that it is called with.
        cache: an SQLite file where a model's decisions are kept; None keeps none. Other
            verifiers are not cached: they are quicker than the cache, or do not say by what
            their decisions can be told apart.
        device: where a model runs; `auto` takes a GPU if there is one.

    Raises:
        InputError: there is no such verifier.
    """
    target, _, argument = spec.partition("?")
    if target == "lexical":
        if argument:
            raise InputError(f"verifier {spec!r}: lexical takes no argument, got {argument!r}")
        from citepipe.verify.lexical import LexicalVerifier

        return LexicalVerifier()
    if ":" in target:
        return _from_factory(spec, target, argument)
    from citepipe.verify.cache import CachedVerifier, DecisionCache
    from citepipe.verify.seq2seq import load_seq2seq

    settings = dict(parse_qsl(argument, keep_blank_values=True))
    unknown = sorted(set(settings) - {"template", "dtype", "revision"})
    if unknown:
        raise InputError(
            f"verifier {spec!r}: unknown setting {unknown[0]!r}, expected template, dtype or "
            "revision"
        )
    verifier = load_seq2seq(target, device=device, **settings)
    return verifier if cache is None else CachedVerifier(verifier, DecisionCache(cache))


def _from_factory(spec: str, target: str, argument: str) -> Verifier:
    module_name, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise InputError(f"verifier {spec!r}: expected package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.startswith(error.name):
            raise InputError(f"verifier {spec!r}: there is no module {error.name!r}") from None
        raise
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise InputError(f"verifier {spec!r}: {module_name} has no function {attribute!r}")
    try:
        verifier: Verifier = factory(argument) if argument else factory()
    except TypeError as error:
        raise InputError(f"verifier {spec!r}: {attribute} cannot be called so: {error}") from None
    if not callable(getattr(verifier, "entails", None)):
        raise InputError(f"verifier {spec!r}: what {attribute} returns has no method entails")
    return verifier
