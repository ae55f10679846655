"""From the name of a verifier to the verifier."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from citepipe.errors import InputError
from citepipe.models import pretrained
from citepipe.progress import say
from citepipe.provenance import digest_of
from citepipe.verify.base import ByVerdict, Pair, Verifier, is_graded
from citepipe.verify.cache import CachedVerifier, DecisionCache, NotedModel

if TYPE_CHECKING:
    from citepipe.verify.models import BatchedVerifier

SERVER = "server:"
_BAND = re.compile(r"[?&]threshold=[^&]*-")
ALCES = "google/t5_xxl_true_nli_mixture"
"""The verifier of ALCE's numbers of record."""

_SETTINGS = {
    "seq2seq": ("template", "dtype", "revision", "threshold"),
    "classifier": ("template", "dtype", "revision", "label", "threshold"),
    "decoder": ("template", "dtype", "revision", "threshold"),
    "tokens": ("dtype", "revision", "threshold"),
}


def load_verifier(spec: str, cache: Path | None = None, device: str = "auto") -> Verifier:
    """Load a verifier; nothing heavy is imported unless it is a model.

    Args:
        spec: `lexical`; a model directory or hub id, perhaps with settings of `load_seq2seq`,
            `load_classifier`, `load_token_classifier` or `load_decoder`
            (`google/t5_xxl_true_nli_mixture?dtype=bfloat16&revision=main`); `server:URL#MODEL`,
            perhaps with settings of `load_server`; or `package.module:factory`, a class or function
            that returns a verifier, perhaps with `?argument`, the one string that it is called
            with, which runs that module's code. Several, as `A>B>C`, are a `Cascade`.
        cache: an SQLite file where a model's decisions are kept. Other verifiers are quicker than
            a cache, or do not say by what their decisions can be told apart.
        device: where a model runs; `auto` takes a GPU if there is one.

    Raises:
        InputError: there is no such verifier, or its cache cannot be used.
    """
    check_spec(spec)
    if len(specs := levels(spec)) > 1:
        from citepipe.verify.cascade import Cascade, Level

        return Cascade(
            [Level(load_verifier(s, cache, device), bool(_BAND.search(s))) for s in specs]
        )
    target, _, argument = spec.partition("?")
    if target == "lexical":
        if argument:
            raise InputError(f"verifier {spec!r}: lexical takes no argument, got {argument!r}")
        from citepipe.verify.lexical import LexicalVerifier

        return LexicalVerifier()
    if ":" in target and not target.startswith(SERVER):
        return _from_factory(spec, target, argument)
    return _from_model(spec, target, argument, cache, device)


def levels(spec: str) -> list[str]:
    """The specs of a cascade, `A>B>C`; of any other verifier its own."""
    return spec.split(">")


def check_spec(spec: str) -> None:
    """Raise InputError for a name that can be no verifier's: a model is a directory, or has its
    owner's name, and is not nearly one that is there. Nothing is loaded and no network asked."""
    if len(specs := levels(spec)) > 1:
        for own in specs:
            check_spec(own)
        return
    target = spec.partition("?")[0]
    # A path that can be none, such as one that is too long, is not there.
    if target == "lexical" or ":" in target or os.path.exists(target):
        return
    owner = Path(target).parent
    known = [
        "lexical",
        *map(str, owner.iterdir() if "/" in target and os.path.isdir(owner) else ()),
    ]
    known += [ALCES] if target.startswith("google/") and target != ALCES else []
    near = difflib.get_close_matches(target, known, n=1, cutoff=0.8)
    if near or "/" not in target:
        meant = f"; is {near[0]} meant?" if near else ""
        raise InputError(
            f"verifier {spec!r}: expected lexical, a model's directory, its OWNER/NAME at the hub, "
            f"server:URL#MODEL, or package.module:function{meant}"
        )


def _from_model(spec: str, target: str, argument: str, cache: Path | None, device: str) -> Verifier:
    listed = parse_qsl(argument, keep_blank_values=True)
    settings = dict(listed)
    if not target or len(settings) < len(listed) or (argument and not listed):
        raise InputError(f"verifier {spec!r}: expected a model and settings as ?name=value&...")
    # Before the model: it would be loaded in vain.
    kept = DecisionCache(cache) if cache else None
    if target.startswith(SERVER):
        from citepipe.verify.server import load_server

        return load_server(spec, target.removeprefix(SERVER), settings, kept)
    load = partial(_load_model, spec, target, settings, device)
    if kept is None:
        return load()
    return CachedVerifier(NotedModel(load, kept, _key(target, settings, device)), kept)


def _load_model(spec: str, target: str, settings: dict[str, str], device: str) -> BatchedVerifier:
    kind = pretrained.kind_of(target, settings.get("revision"))
    unknown = sorted(set(settings) - set(_SETTINGS[kind]))
    if unknown:
        raise InputError(
            f"verifier {spec!r}: unknown setting {unknown[0]!r} of a {kind} model, expected "
            f"{', '.join(_SETTINGS[kind])}"
        )
    from citepipe.verify import decoders, models

    loaders: dict[str, Any] = {
        "seq2seq": models.load_seq2seq,
        "classifier": models.load_classifier,
        "tokens": models.load_token_classifier,
        "decoder": decoders.load_decoder,
    }
    verifier: BatchedVerifier = loaders[kind](target, device=device, **settings)
    return verifier


def _key(target: str, settings: dict[str, str], device: str) -> str:
    """A digest of all that decides what a model says of itself, before it is loaded: a directory's
    files count by sizes and times, a model of the hub by its commit."""
    pretrained.check_directory(target, "verifier")
    version: Any
    if Path(target).is_dir():
        files = [file.resolve() for file in sorted(Path(target).rglob("*")) if file.is_file()]
        states = [(file, file.stat()) for file in files]
        version = [[str(f), s.st_size, s.st_mtime_ns, s.st_ctime_ns] for f, s in states]
    else:
        from huggingface_hub import hf_hub_download

        with pretrained.one_line(target, "verifier", "config.json"):
            file = hf_hub_download(target, "config.json", revision=settings.get("revision"))
        # In a folder with the commit's name.
        version = Path(file).parent.name
    # What `auto` may take, for the device and for the weights' type.
    gpus = [str(path) for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
    machine = [gpus, os.environ.get("CUDA_VISIBLE_DEVICES"), metadata.version("torch")]
    code = [Path(__file__).with_name(f"{name}.py") for name in ("models", "decoders")]
    template = Path(settings.get("template", ""))
    code += [Path(pretrained.__file__), *([template] if template.is_file() else [])]
    read = [digest_of(file.read_bytes()) for file in code]
    return digest_of([target, settings, device, version, machine, read])


def _from_factory(spec: str, target: str, argument: str) -> Verifier:
    factory, called = _factory(spec, target), target.partition(":")[2]
    with _one_line(spec, called):
        verifier = factory(argument) if argument else factory()
    return checked(spec, verifier)


def _factory(spec: str, target: str) -> Callable[..., Any]:
    module_name, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise InputError(f"verifier {spec!r}: expected package.module:function")
    # `os:system?...` would run a command before its result is seen to be no verifier.
    if module_name.partition(".")[0] in {*sys.stdlib_module_names, *sys.builtin_module_names}:
        raise InputError(f"verifier {spec!r}: {module_name} is part of Python, not of a verifier")
    # An installed command does not look where it is called.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    if module_name.partition(".")[0] != "citepipe" and module_name not in sys.modules:
        say(f"verifier {spec!r}: the code of {module_name} is run, with all that you may do")
    with _one_line(spec, module_name):
        module = importlib.import_module(module_name)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise InputError(f"verifier {spec!r}: {module_name} has no function {attribute!r}")
    return factory


def checked(spec: str, verifier: Any) -> Verifier:
    """A verifier from outside of this package, which is called by `spec` where it is at fault."""
    if not isinstance(verifier, Verifier):
        raise InputError(
            f"verifier {spec!r}: expected a verifier, with a name and a method entails, got "
            f"{type(verifier).__name__}"
        )
    return _UsersVerifier(spec, verifier)


class _UsersVerifier(ByVerdict):
    """A verifier from outside of this package, whose mistakes are one clear line."""

    def __init__(self, spec: str, verifier: Verifier) -> None:
        self._spec, self._verifier = spec, verifier
        self.name = verifier.name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._verifier, attribute)

    def verdicts(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """See `ByVerdict.verdicts`; None for 0.5 of one that is graded."""
        with _one_line(self._spec, "entails"):
            decisions = list(self._verifier.entails(pairs))
        if len(decisions) != len(pairs):
            raise InputError(
                f"verifier {self._spec!r}: {len(decisions)} decisions on {len(pairs)} pairs"
            )
        # NumPy's are as good; a probability, or a tensor, leaves open what it means.
        kinds, graded = ("bool", "bool_"), is_graded(self._verifier)
        if odd := [
            one
            for one in decisions
            if type(one).__name__ not in kinds
            and not (graded and isinstance(one, Real) and one in (0, 0.5, 1))
        ]:
            expected = "1, 0.5 or 0" if graded else "True or False"
            raise InputError(
                f"verifier {self._spec!r}: expected {expected} for each pair, got {odd[0]!r}"
            )
        return [None if one == 0.5 else bool(one) for one in decisions]


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


def try_out(spec: str) -> None:
    """Find out before a run whether a user's verifier is one: it is made and decides on two pairs,
    unless its argument may be a file that is still to be made. Raises InputError."""
    target, _, argument = spec.partition("?")
    if argument and not Path(argument).exists():
        _factory(spec, target)
    else:
        premise = "Title: Mill\nThe mill is old."
        asked = [Pair(premise, f"The mill is {word}.") for word in ("old", "new")]
        _from_factory(spec, target, argument).entails(asked)


if __name__ == "__main__":
    try:
        list(map(try_out, sys.argv[1:]))
    except InputError as error:
        sys.exit(str(error))
