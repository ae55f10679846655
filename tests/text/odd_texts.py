"""Texts as no person writes them but a model or a file may, for tests of properties.

`CITEPIPE_CASES` says how many texts each property is tried on. Hypothesis draws the same ones
every time where the variable `CI` is set.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

ODD = settings(
    max_examples=int(os.environ.get("CITEPIPE_CASES", "400")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

CITATIONS = ["[1]", "[1][1][2]", "[0]", "[1, 2]", "[2012]", "[12", "[", "]", "[3].", "[\u0661]"]
STOPS = [".", ". ", "!", "? ", "...", ". . .", "?!", "U.S.", "3.5", "J. K. ", "No. 5", "e.g. "]
WORDS = ["Paris", "the", "The", "a", "it", "Anna Berg", "12", "-", "--", '"', "”", "'s", "("]
SPACES = [" ", "  ", "\n", "\t", "\r\n", "\xa0", "\u2003", "\x1c", "\x85", "\u2028", "\u200b"]
ENDS = [",", ", ", ",.", " |", "<|im_end|>", "<|im_", "end|>"]
FOREIGN = ["é", "e\u0301", "İ", "ß", "日本", "。", "שלום", "مرحبا", "\u202e", "👩‍👩‍👧"]
FOREIGN += ["\ud800", "\udc00", "\0"]

FRAGMENTS = st.sampled_from([*CITATIONS, *STOPS, *WORDS, *SPACES, *ENDS, *FOREIGN])
# Surrogates are no text, but JSON can hold them.
CHARACTERS = st.characters(exclude_categories=())
TEXTS = st.one_of(
    st.lists(FRAGMENTS, max_size=40).map("".join),
    st.lists(st.one_of(FRAGMENTS, st.text(CHARACTERS, max_size=4)), max_size=20).map("".join),
    st.text(CHARACTERS, max_size=60),
)
DATASETS = st.sampled_from(["asqa", "qampari"])
