"""Where sentences end: spans from NLTK's Punkt (Kiss and Strunk 2006)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from citepipe.errors import InputError
from citepipe.text.lean import lean_imports

if TYPE_CHECKING:
    from nltk.tokenize.punkt import PunktParameters

Span = tuple[int, int]
Splitter = Callable[[str], list[Span]]

SPLITTERS = ("punkt-rules", "punkt")

# A stop after one of these (without its last stop, in lower case) ends no sentence, unless a word
# follows that usually begins one.
_ABBREVIATIONS = """
mr mrs ms dr prof rev hon st sr jr messrs mme mlle fr gen col maj capt cmdr lt sgt cpl pvt adm
gov sen rep pres supt insp esq ph.d m.d b.a m.a b.s m.s d.c r.n ll.b ll.m u.s u.s.a u.k u.n e.u
u.s.s.r l.a n.y n.y.c n.j w.va e.g i.e cf viz al vs v etc approx ca c.f ibid op cit no nos vol
vols pp p fig figs eq eqs sec ch ed eds trans est repr rev.ed a.m p.m a.d b.c b.c.e c.e jan feb
mar apr jun jul aug sep sept oct nov dec mon tue tues thu thur thurs fri inc ltd co corp bros
dept univ assn assoc intl natl llc plc mfg ave blvd rd hwy mt ft sq pl bldg apt ala ariz calif
colo conn del fla ga kan ky la md mich minn mo mont neb nev okla pa penn tenn tex vt va wis wyo
oz lb lbs hr hrs min mins kg km cm mm mi
"""

_BEGINNINGS = """
the this that these those there here he she it they we i you his her its their our my your in on
at by for from with without during before after since until while when where although though
because if as however moreover furthermore therefore thus additionally also and but or so yet a
an another some many most all both each every several one two three what who which why how
according despite among between under over
"""
STARTERS = frozenset(_BEGINNINGS.split())
"""Words that begin a sentence when they are capitalised, also after an abbreviation or initial."""

_STOP_WITHIN = re.compile(r"[.?!](?=\s*\S)")
# The stops of scripts that Punkt does not know, and what closes with them.
_OTHER_STOPS = re.compile(r"[。！？｡؟।॥۔։።။។]+[」』”’）)】»\"']*")


@lru_cache(maxsize=len(SPLITTERS))
def load_splitter(spec: str = "punkt-rules") -> Splitter:
    """A function from a text to the spans `[start, end)` of its sentences.

    Args:
        spec: `punkt-rules`, Punkt with a list of English abbreviations that is part of this
            package: no download, the same everywhere. `punkt`, the English model that ALCE uses
            through `nltk.sent_tokenize`, which must be installed.

    Raises:
        InputError: an unknown spec, or NLTK's model is not installed.
    """
    if spec not in SPLITTERS:
        raise InputError(f"splitter {spec!r}: expected one of {', '.join(SPLITTERS)}")
    with lean_imports():
        from nltk.data import find
        from nltk.tokenize import punkt

    try:
        parameters = (
            english_rules()
            if spec == "punkt-rules"
            else punkt.load_punkt_params(find("tokenizers/punkt_tab/english/"))
        )
    except LookupError:
        raise InputError(
            "splitter punkt: NLTK's punkt_tab model is not installed; run "
            "`python -m nltk.downloader punkt_tab`, or take the splitter punkt-rules"
        ) from None
    tokenizer = punkt.PunktSentenceTokenizer(parameters)
    # An answer is read by two sets of rules, and a reference may come twice.
    known = lru_cache(maxsize=4096)(lambda text: tuple(tokenizer.span_tokenize(text)))
    # Most lines of answers are one sentence, which Punkt takes some time to see.
    return lambda text: (
        list(known(text))
        if _STOP_WITHIN.search(text) or not text.strip()
        else [(0, len(text.rstrip()))]
    )


def split_sentences(text: str, splitter: Splitter) -> list[Span]:
    """The spans of sentences in any script: what the splitter finds, cut at the stops of scripts
    that it does not know."""
    spans = splitter(text)
    if not _OTHER_STOPS.search(text):
        return spans
    parts = []
    for start, end in spans:
        for stop in _OTHER_STOPS.finditer(text, start, end):
            parts.append((start, stop.end()))
            start = stop.end() + len(text[stop.end() : end]) - len(text[stop.end() : end].lstrip())
        if start < end:
            parts.append((start, end))
    return parts


def english_rules() -> PunktParameters:
    """English abbreviations and words that begin sentences, without a trained model."""
    from nltk.tokenize import punkt

    parameters = punkt.PunktParameters()
    parameters.abbrev_types = set(_ABBREVIATIONS.split())
    parameters.sent_starters = set(STARTERS)
    for word in parameters.sent_starters:
        # Seen capitalised at the beginning and lower-case inside of sentences: `Vitamin C. The`
        # is then two sentences while `J. K. Rowling` is none.
        parameters.add_ortho_context(word, punkt._ORTHO_BEG_UC | punkt._ORTHO_MID_LC)
    return parameters
