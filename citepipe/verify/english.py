"""English sentences as a verifier without a model reads them: words, their kinds, their places.

Stems are by NLTK's Snowball (Porter 2), sentences by its Punkt, frequent words are spaCy's. None of
them needs a model or a download. The lists below are word classes of which these have no lists.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property, lru_cache
from html import unescape
from itertools import pairwise
from typing import NamedTuple

from citepipe.text.layout import BREAKS, TAGS
from citepipe.text.lean import lean_imports
from citepipe.text.sentences import load_splitter
from citepipe.verify.quotes import is_english, is_frequent, read_quotable

with lean_imports():
    from nltk.stem.snowball import SnowballStemmer


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _words(
    "a an the this that these those my your his her its our their some any each every either "
    "neither no another such what which whose all both"
)
PRONOUNS = _words(
    "i me you he him she it we us they them this these that those who one myself yourself himself "
    "herself itself ourselves themselves there others"
)
# A sentence that begins with one of these speaks of what the sentence before it named.
ANAPHORS = _words("he she it they his her its their this these")
# A subject that begins with one of these, or is one, points to something known already.
DEFINITE = ANAPHORS | {"the", "that", "those"}
PREPOSITIONS = _words(
    "about above across after against along among around as at before behind below beneath beside "
    "between beyond by down during except for from in inside into near of off on onto out outside "
    "over per since than through throughout till to toward towards under until up upon via with "
    "within"
)
AUXILIARIES = _words(
    "am is are was were be been being has have had having do does did can could will would shall "
    "should may might must"
)
NEGATIONS = _words("not no never none nobody nothing nowhere neither nor without unable")
# Where one clause of a statement may end and the next, about the same subject, begin.
COORDINATORS = _words("and but while whereas ;")
# Words that no English statement ends with.
OPEN_ENDS = _words(
    "a an the my your its our their every of by from with into in at to and but or while whereas "
    "was were is are"
)
# Words that a statement may have or lack beside the sentence that it restates.
_NEUTRAL = _words(
    ", ; : ( ) a an the am is are was were be been being has have had having do does did of by to "
    "and that which who whom whose as also then however therefore"
)
# Of the frequent words those that say something: nouns, verbs and adjectives, also in names.
_CONTENT_STOPS = _words(
    "amount bottom call empty first front full get give go keep last made make move name next part "
    "put say see serious show side take top used using whole"
)
_ARTICLES = _words("a an the my your its our their every")
# Words that no English has one behind the other.
BROKEN = frozenset(
    {(a, b) for a in _ARTICLES for b in _ARTICLES | PREPOSITIONS | AUXILIARIES | NEGATIONS}
    | {(a, b) for a in NEGATIONS for b in NEGATIONS}
    | {(a, b) for a in COORDINATORS for b in COORDINATORS}
)

# The forms of irregular verbs that Snowball does not bring to the stem of the infinitive.
_IRREGULAR = """
be is are was were been am being, have has had having, do does did done doing, say said,
go went gone goes, get got gotten, make made, know knew known, think thought, take took taken,
see saw seen, come came, give gave given, find found, tell told, become became, leave left,
feel felt, bring brought, begin began begun, keep kept, hold held, write wrote written,
stand stood, hear heard, mean meant, meet met, run ran, pay paid, sit sat, speak spoke spoken,
lie lay lain, lead led, grow grew grown, lose lost, fall fell fallen, send sent, build built,
understand understood, draw drew drawn, break broke broken, spend spent, rise rose risen,
drive drove driven, buy bought, wear wore worn, choose chose chosen, win won, teach taught,
catch caught, sing sang sung, fight fought, throw threw thrown, fly flew flown, sell sold,
seek sought, eat ate eaten, drink drank drunk, shoot shot, sink sank sunk, swim swam swum,
bear bore born borne, strike struck, hide hid hidden, steal stole stolen, bind bound,
die died dying
"""
_LEMMAS = {form: verb.split()[0] for verb in _IRREGULAR.split(",") for form in verb.split()}
_PAST_FORMS = frozenset(form for form, lemma in _LEMMAS.items() if form != lemma)
# By value; `one` and `first` are seldom meant as numbers.
_COUNTED = """
zero, , two second, three third, four fourth, five fifth, six sixth, seven seventh, eight eighth,
nine ninth, ten tenth, eleven eleventh, twelve twelfth, thirteen, fourteen, fifteen, sixteen,
seventeen, eighteen, nineteen, twenty
"""
_NUMBERS = {
    word: str(value) for value, words in enumerate(_COUNTED.split(",")) for word in words.split()
}
_NUMERALS = _NUMBERS.keys() | _words(
    "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth thirty "
    "thirtieth forty fortieth fifty fiftieth sixty sixtieth seventy seventieth eighty eightieth "
    "ninety ninetieth hundred hundredth thousand thousandth million millionth billion billionth "
    "trillion trillionth"
)
_MONTHS = _words(
    "January February March April June July August September October November December"
)
# Prepositions that limit nothing by themselves.
LINKS = _words("in on at for with")
# Words that say more than their lack does.
GENERAL = _words("all every each only always never both none no most any must exactly")
# Statements with fewer content words, or fewer besides names and numbers, state a fact.
PLAINLY_LONG = 8
_MANY_WORDS = 4

_PUNCTUATION = frozenset(",;:()")
_NOUN_FOLLOWS = DETERMINERS | PREPOSITIONS
_LETTER = r"[^\W\d_]"
# All but spaces, punctuation and symbols.
_CHARACTER = (
    r"[^\s!-/:-@\[-`{-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb\xbf×÷"
    r"\u2000-\u206f\u20a0-\u2bff\u3000-\u303f\uff01-\uff0f\ufff9-\uffff\U0001f000-\U0001faff]"
)
_PIECE = re.compile(
    r"[,;:()$€£¥₹%°]|\w+://\S*\w|(?<!['’](?=[sS]\b))"
    rf"{_CHARACTER}+(?:(?:['’&@_#+*]|(?<![a-zß-öø-ÿ])\.|\.(?![A-ZÀ-ÖØ-Þ])|(?<=\d)[,:/](?=\d)"
    rf"|(?<!\d)-(?!{_LETTER})|[–—](?!{_LETTER})){_CHARACTER}+)*"
)
# What is written as one word and read as two, in small letters: `5km`, `cannot`, `she'll`.
_TWO = re.compile(
    r"(.*\d)([ap]m|[kcmdnµ]?m[²³]?|[kmµ]?g|[kgt]|ha|ft|lb|oz|in|yd|mph|[kmgt]b)|(can)(not)|(.+)(n't)"
    r"|(are|ca|could|did|do|does|had|has|have|is|must|should|was|were|wo|would)(nt)"
    r"|(.+)('(?:d|ll|m|re|ve))|(.+)'s"
)
_FULL = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee", "%": "percent"}
_FULL |= {"n't": "not", "pm": "p.m"}
# What else the parts stand for; as a word of its own `NT` is a territory, and `am` a verb.
_PARTS = {"ca": "can", "wo": "will", "sha": "shall", "nt": "not", "am": "a.m", "'d": "d"} | _FULL
_PARTS |= {"'ll": "will", "'m": "am", "'re": "are", "'ve": "have"}
_SHORTENED = {month[:3]: month for month in _MONTHS} | {"Sept": "September", "Mt": "Mount"}
_ENDING_OF_NUMBER = re.compile(r"(?<=\d)(?:st|nd|rd|th|s)$")
# What names a place where a text is kept, and not what it is about.
_ADDRESS = re.compile(r"^\S*(?:://|_|[a-z0-9][./\\@][a-z0-9])\S*$")
_TITLE = re.compile(r"(?:^|\n)Title: ([^\n]*)(?=\n|$)")
# Punkt searches what has no space in quadratic time.
_CLUTTER = re.compile(r"[^\w\s]{8,}")
_LONG = re.compile(r"(\S{64})(?=\S)")
_ENTITY = re.compile(r"&#?\w{1,31};")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME_REACH = 3  # words from one of a name to the next, with middle names and initials
_REMEMBERED_WORDS = 1 << 16
_REMEMBERED_TEXTS = 1 << 15

_stem = lru_cache(maxsize=_REMEMBERED_WORDS)(SnowballStemmer("english").stem)


class Token(NamedTuple):
    """A word: its normal form and stem, and what kind of word it is."""

    word: str
    stem: str
    content: bool
    name: bool
    verb: bool
    number: bool


class Gap(NamedTuple):
    """A run of words that one sentence has and another lacks, with the stems of its neighbours that
    both have (empty at the ends), and all that stands before it."""

    before: str
    left: tuple[Token, ...]
    run: tuple[Token, ...]
    after: str

    @property
    def telling(self) -> list[Token]:
        """Without the words that hardly matter."""
        return [token for token in self.run if token.word not in _NEUTRAL]


class Sentence:
    """The tokens of a sentence or clause, and what is often needed of them."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tuple(tokens)

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Where each content word (stem) stands."""
        places: dict[str, list[int]] = {}
        for i, token in enumerate(self.tokens):
            if token.content:
                places.setdefault(token.stem, []).append(i)
        return places

    @cached_property
    def stems(self) -> frozenset[str]:
        """The stems of its content words."""
        return frozenset(self.places)

    @cached_property
    def words(self) -> frozenset[str]:
        """The stems of its content words that are neither names nor numbers."""
        return frozenset(t.stem for t in self.tokens if t.content and not t.name and not t.number)

    @cached_property
    def phrases(self) -> frozenset[tuple[str, str]]:
        """The pairs of successive content words, as stems."""
        return frozenset(pairwise(token.stem for token in self.tokens if token.content))

    @cached_property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """The pairs of neighbouring words of any kind, but not of punctuation."""
        words = (token.word for token in self.tokens if token.word not in _PUNCTUATION)
        return frozenset(pairwise(words))

    @cached_property
    def name_pairs(self) -> frozenset[tuple[str, str]]:
        """The pairs of adjacent words of names, as stems."""
        return frozenset((a.stem, b.stem) for a, b in pairwise(self.tokens) if a.name and b.name)

    @cached_property
    def negated(self) -> bool:
        """Whether it denies what it says."""
        return sum(token.word in NEGATIONS for token in self.tokens) % 2 == 1

    @cached_property
    def telling(self) -> frozenset[str]:
        """The stems of all words but for those that hardly matter (`the`, `was`)."""
        return frozenset(t.stem for t in self.tokens if t.word not in _NEUTRAL)

    @cached_property
    def long(self) -> bool:
        """Whether it sums up, and does not state a single fact."""
        return len(self.words) >= _MANY_WORDS and len(self.stems) >= PLAINLY_LONG

    def count(self, word: str) -> int:
        """How often a word stands in it."""
        return sum(token.word == word for token in self.tokens)

    def link(self, i: int) -> str:
        """The preposition behind a word; empty if there is none."""
        following = self.tokens[i + 1].word if i + 1 < len(self.tokens) else ""
        return following if following in PREPOSITIONS else ""

    @cached_property
    def order(self) -> dict[str, int]:
        """Where each telling word (stem), or `to`, stands that stands once."""
        stems = [token.stem for token in self.tokens]
        words = self.telling | {"to"}
        return {stem: stems.index(stem) for stem in words if stems.count(stem) == 1}

    def gaps(self, known: Collection[str]) -> list[Gap]:
        """The longest runs of telling words that are not among `known` stems."""
        gaps, before, run = [], "", list[int]()
        for i, token in enumerate([*self.tokens, None]):
            if token is not None and token.word in _NEUTRAL:
                continue
            if token is not None and token.stem not in known:
                run.append(i)
                continue
            after = "" if token is None else token.stem
            if run and not self._opens(run):
                first, end = run[0], run[-1] + 1
                gaps.append(Gap(before, self.tokens[:first], self.tokens[first:end], after))
            before, run = after, []
        return gaps

    def _opens(self, run: Sequence[int]) -> bool:
        """Whether words are a pronoun or one word and a comma at the beginning."""
        if list(run) != [0]:
            return False
        return self.tokens[0].word in ANAPHORS or [t.word for t in self.tokens[1:2]] in (
            [","],
            [":"],
        )

    @cached_property
    def subject(self) -> tuple[Token, ...]:
        """What stands before the first verb; everything if there is none."""
        verb = next((i for i, token in enumerate(self.tokens) if token.verb), len(self.tokens))
        return self.tokens[:verb]

    @cached_property
    def roles(self) -> dict[str, tuple[str, frozenset[str], frozenset[str]]]:
        """Per verb (stem): the preposition behind it, the names that do it, and the others.

        Of a verb that stands several times, its last place counts.
        """
        roles = {}
        last = {
            token.stem: i for i, token in enumerate(self.tokens) if token.verb and token.content
        }
        for stem, i in last.items():
            link = self.link(i)
            before = frozenset(token.stem for token in self.tokens[:i] if token.name)
            after = frozenset(token.stem for token in self.tokens[i + 1 :] if token.name)
            roles[stem] = (link, after, before) if link == "by" else (link, before, after)
        return roles

    def joins(self, first: str, second: str) -> bool:
        """Whether `second` follows `first` with at most middle names or initials in between."""
        if first not in self.places or second not in self.places:
            return False
        ends = set(self.places[second])
        return any(
            b in ends
            and all(token.name or len(token.word) == 1 for token in self.tokens[a + 1 : b])
            for a in self.places[first]
            for b in range(a + 1, a + _NAME_REACH + 1)
        )


class Evidence(NamedTuple):
    """A sentence of a document; the `parts` that are read together, which are the title, the
    sentence, and the one before it if it begins with a pronoun; and the stems of them all."""

    sentence: Sentence
    parts: tuple[Sentence, ...]
    stems: frozenset[str]


class Document:
    """A passage with its title, which is empty if it has none; its sentences are read when they are
    asked for, which takes most of the time and what is quoted word for word does not need."""

    def __init__(self, title: str, text: str) -> None:
        self._title, self._text = title, text
        self.heading = read_quotable(title)
        self.quotable = read_quotable(text, cut=True)
        self.english = is_english(text)

    @cached_property
    def title(self) -> Sentence:
        """The title, empty where it is an address."""
        return read_sentence("" if _ADDRESS.search(self._title) else self._title)

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """Its sentences; a document that is only a title still states it."""
        before: Sentence | None = None
        evidence = []
        for sentence in read_sentences(self._text) or [read_sentence("")]:
            anaphoric = bool(sentence.tokens) and sentence.tokens[0].word in ANAPHORS
            referred = [before] if before is not None and anaphoric else []
            parts = (self.title, sentence, *referred)
            stems = frozenset[str]().union(*(part.stems for part in parts))
            evidence.append(Evidence(sentence, parts, stems))
            before = sentence
        return tuple(evidence)


def readable(text: str) -> str:
    """A text without HTML's tags, with the characters that it names (`&amp;`), and without what no
    tokenizer is made for: endless words, lone surrogates."""
    if "<" in text:
        text = BREAKS.sub("\n", TAGS.sub("", text))
    if "&" in text:
        text = _ENTITY.sub(lambda own: unescape(own[0]), text)
    return _SURROGATE.sub("\ufffd", _LONG.sub(r"\1 ", _CLUTTER.sub(" ", text)))


@lru_cache(maxsize=_REMEMBERED_TEXTS)
def read_documents(premise: str) -> tuple[Document, ...]:
    """The documents of a premise; a text that does not begin with a title is one without."""
    parts = _TITLE.split(readable(premise))
    untitled = [("", parts[0])] if parts[0].strip() else []
    return tuple(
        _document(title, text)
        for title, text in [*untitled, *zip(parts[1::2], parts[2::2], strict=True)]
    )


_document = lru_cache(maxsize=_REMEMBERED_TEXTS)(Document)


def read_sentences(text: str) -> list[Sentence]:
    """The sentences of a text."""
    split = load_splitter("punkt-rules")
    return [read_sentence(line[a:b]) for line in text.splitlines() for a, b in split(line)]


@lru_cache(maxsize=_REMEMBERED_TEXTS)
def read_sentence(text: str) -> Sentence:
    """The words of a sentence; dividing punctuation counts as words without content."""
    written = [piece for chunk in text.split() for piece in _pieces(chunk)]
    tokens: list[Token] = []
    begins = True  # where any word may be capitalised; it is a name if another one follows
    noun = False
    for i, (word, capital) in enumerate(written):
        if begins and capital:
            capital = i + 1 < len(written) and written[i + 1][1]
        tokens.append(_token(word, capital, noun))
        begins, noun = word in _PUNCTUATION, word in _NOUN_FOLLOWS
    return Sentence(tokens)


@lru_cache(maxsize=_REMEMBERED_WORDS)
def _pieces(chunk: str) -> list[tuple[str, bool]]:
    """The words between two spaces, in normal form, and whether each is capitalised."""
    pieces = []
    for found in _PIECE.finditer(chunk):
        form, stop = found[0], chunk[found.end() : found.end() + 1] == "."
        small = _SHORTENED.get(form, form) if stop else form
        small = small.lower().replace("’", "'")
        words = [_FULL.get(small, small)]
        if parts := _TWO.fullmatch(small):
            words = [_PARTS.get(word, word) for word in parts.groups() if word]
        pieces.append((words[0], form[0].isupper()))
        pieces += [(word, False) for word in words[1:]]
    return pieces


@lru_cache(maxsize=_REMEMBERED_WORDS)
def _token(word: str, capital: bool, noun: bool) -> Token:
    """A word where it stands: its normal form, whether it is written as names are, and whether a
    noun is to be expected there, and no verb."""
    number = word[0].isdigit() or word in _NUMERALS
    if word[0].isdigit():
        stem = _ENDING_OF_NUMBER.sub("", word.replace(",", ""))
    else:
        stem = _NUMBERS.get(word) or _stem(_LEMMAS.get(word, word))
    stop = len(word) == 1 or (is_frequent(word) and word not in _CONTENT_STOPS)
    content = number or not stop
    name = capital and content and not number
    return Token(word, stem, content, name, not name and _is_verb(word, noun), number)


def _is_verb(word: str, noun: bool) -> bool:
    """Whether a word looks like a finite verb: an auxiliary, a past form, or one with an s."""
    if word in AUXILIARIES or word in _PAST_FORMS:
        return True
    if noun:
        return False
    if len(word) > 4 and word.endswith("ed"):
        return True
    return len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "ics"))
