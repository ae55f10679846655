import json
from pathlib import Path

import pytest

from citepipe.verify import lexical
from citepipe.verify.base import Pair
from citepipe.verify.english import read_sentence
from citepipe.verify.lexical import LexicalVerifier

FILM = "Title: Silver River\nThe 1972 film was directed by Anna Berg."


def entails(premise: str, hypothesis: str) -> bool:
    return LexicalVerifier().entails([Pair(premise, hypothesis)])[0]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("Silver River was directed by Anna Berg.", True),
        ("Anna Berg directed Silver River.", True),
        ("The 1972 film Silver River was directed by Anna Berg.", True),
        ("Silver River was directed by Otto Berg.", False),  # another name
        ("The 1973 film Silver River was directed by Anna Berg.", False),  # another number
        ("Silver River starred Anna Berg.", False),  # another verb
        ("Silver River was not directed by Anna Berg.", False),  # negation
        ("Silver River wasn't directed by Anna Berg.", False),
        ("Silver River wasn’t directed by Anna Berg.", False),
        ("Anna Berg was directed by Silver River.", False),  # the wrong way round
        ("Anna River was directed by Silver Berg.", False),  # names torn apart
        # A bare title or fragment.
        ("Silver River", False),
        ("Silver River.", False),
        ("The 1972 film Silver River", False),
        ("Silver River Silver River.", False),
        ("Silver River was directed by", False),
        ("was directed by Anna Berg.", False),
        ("The film was directed by Anna Berg.", False),
        ("Silver River was was directed by Anna Berg.", False),
        ("", False),
        ("?", False),
        # Items of a list.
        ("Which films were directed by Anna Berg? Silver River", True),
        ("Which films were directed by Anna Berg? Silver", False),  # half of a name
        ("Which films were directed by Anna Berg? Golden Door", False),
        ("Which films were directed by Anna Berg? Anna Berg", False),  # the question's own words
        ("Which films were directed by Anna Berg? film", False),
        ("Which films were directed by Anna Berg? ", False),
        ("Which films starred Anna Berg? Silver River", False),  # another question
        ("Which films were directed by Otto Berg? Silver River", False),
    ],
)
def test_what_a_document_supports(statement: str, expected: bool):
    assert entails(FILM, statement) is expected


PASSAGE = (
    "Single-use plastic bags were banned in several coastal towns. The towns reported far less "
    "litter on public beaches after the ban. Shops in Oslo sold 300 paper bags instead."
)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        # `Coastal` is in the sentence before, all else is in one.
        ("Coastal towns reported far less litter on public beaches after the bag ban.", True),
        # `Bergen` is nowhere.
        ("Bergen towns reported far less litter on public beaches after the bag ban.", True),
        # The number is not there.
        ("All 12 towns reported far less litter on public beaches after the bag ban.", False),
        # The same with a negation.
        ("The towns have not reported far less litter on public beaches after the bag ban.", False),
        # Other matters.
        ("Several fishing boats carried heavy wooden boxes towards distant northern ports.", False),
    ],
)
def test_a_statement_of_many_words_may_sum_up_a_passage(statement: str, expected: bool):
    assert entails(PASSAGE, statement) is expected


BIOGRAPHIES = "Anna was born in Oslo. Otto was born in Rome."
UNTITLED = "Anna Berg (born 1940) is a Swedish director. She was born in Oslo."
STARS = f"{FILM}\nTitle: Silver River\nThe 1972 film starred Otto Lind."
OTHERS = f"{FILM}\nTitle: Golden Door\nThe 1980 film was directed by Leon Holm."
ANSWER = "Anna Berg was born in Oslo. Anna Berg won the Amber Prize."
MINERS = (
    "The 1972 film Silver River, a drama by Anna Berg about miners in Sweden, "
    "won the Amber Prize in Oslo."
)


@pytest.mark.parametrize(
    ("premise", "statement", "expected"),
    [
        # A document without text.
        (f"Title: Golden Door\n{FILM}", "Silver River was directed by Anna Berg.", True),
        # A pronoun refers to the sentence before.
        (UNTITLED, "Anna Berg was born in Oslo.", True),
        # Names of different sentences do not join.
        (BIOGRAPHIES, "Anna was born in Rome.", False),
        # Clauses may rest on different documents; one fact may not.
        (STARS, "Silver River was directed by Anna Berg and starred Otto Lind.", True),
        (FILM, "Silver River was directed by Anna Berg and starred Otto Lind.", False),
        (OTHERS, "Silver River was directed by Leon Holm.", False),
        # An answer as the premise of a claim.
        (ANSWER, "Anna Berg won the Amber Prize.", True),
        (ANSWER, "Anna Berg won the Ruby Prize.", False),
        (
            "Anna Berg's brother Otto lived in Oslo.",
            "Otto, brother of Anna Berg, lived in Oslo.",
            True,
        ),
        # A sentence of many content words, and a heap of them.
        (MINERS, "Silver River, a 1972 drama about miners in Sweden, won the Amber Prize.", True),
        (MINERS, "Silver River 1972 film drama Anna Berg miners Sweden Amber Prize Oslo", False),
        (
            MINERS,
            "Silver River, a the 1972 drama about miners, won the Amber Prize.",
            False,
        ),
        (
            MINERS,
            "Prize in Berg by the Oslo about drama Sweden won River of Amber miners.",
            False,
        ),
    ],
)
def test_what_documents_support_together(premise: str, statement: str, expected: bool):
    assert entails(premise, statement) is expected


@pytest.mark.parametrize(
    ("written", "stated", "expected"),
    [
        ("1,000", "1000", True),
        ("twelve", "12", True),
        ("20th", "20", True),
        ("fifty", "sixty", False),
        ("1972", "1973", False),
        ("€5", "5 euro", True),
        ("5 dollar", "$5", True),
        ("5 euro", "$5", False),
        ("1972", "1972$", False),
    ],
)
def test_numbers_match_however_they_are_written(written: str, stated: str, expected: bool):
    premise = f"Anna Berg directed {written} films in Oslo."
    assert entails(premise, f"Anna Berg directed {stated} films in Oslo.") is expected


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("She'd cannot, won’t Anna's", ["she", "d", "can", "not", ",", "will", "not", "anna"]),
        (
            "1,000km (5pm) 3.5% $7",
            ["1,000", "km", "(", "5", "p.m", ")", "3.5", "percent", "dollar", "7"],
        ),
        ("well-known covid-19 1990-95", ["well", "known", "covid-19", "1990", "95"]),
        ("ends.The U.S. AT&T land[1].", ["ends", "the", "u.s", "at&t", "land", "1"]),
        ("In 1972\ufffd.", ["in", "1972"]),
        ("I'm in Perth, NT", ["i", "am", "in", "perth", ",", "nt"]),
        ("Jan. https://a.org/b-c. Mar 's", ["january", "https://a.org/b-c", "mar"]),
    ],
)
def test_words_are_found(written: str, read: list[str]):
    assert [token.word for token in read_sentence(written).tokens] == read


HANDBOOK = (
    "Title: https://wiki.example.org/night_shift\nThe on-call engineer pages the manager. Bees are "
    "insects. Some of the wells were dry. Rollbacks take less than four minutes. The lighthouse is "
    "taller than the crane. The train from Oslo to Bergen was late. The door is always locked. Dr. "
    "Lind may use the printer. Logs older than 90 days are deleted. Readers borrow books; staff "
    "renew loans by telephone.\nOpening hours\nThe crane was built before the war"
)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        # As the document has it, case, stops and marks apart.
        ("The on-call engineer pages the manager.", True),
        ("Bees are insects", True),
        ("**Some of the wells were dry.**", True),
        ("Bees are insects. The door is always locked.", True),
        ("Dr. Lind may use the printer.", True),
        ("The crane was built before the war.", True),
        # Not from the beginning of a sentence to its end.
        ("than the crane.", False),
        ("Readers borrow books; staff.", False),
        ("Opening hours", False),
        # Changed.
        ("The manager pages the on-call engineer.", False),
        ("The manager pages the engineer.", False),
        ("Wasps are insects.", False),
        ("Bees are not insects.", False),
        ("All of the wells were dry.", False),
        ("The wells were dry.", False),
        ("Rollbacks take more than four minutes.", False),
        ("Rollbacks take four minutes.", False),
        ("Rollbacks take less than forty minutes.", False),
        ("The crane is taller than the lighthouse.", False),
        ("The lighthouse is smaller than the crane.", False),
        ("The train from Bergen to Oslo was late.", False),
        ("The door is never locked.", False),
        ("Dr. Lind may not use the printer.", False),
        ("The crane was built after the war.", False),
        ("Readers renew loans by telephone.", False),
        # An address is no subject.
        ("The night shift pages the manager.", False),
    ],
)
def test_what_a_handbook_says(statement: str, expected: bool):
    assert entails(HANDBOOK, statement) is expected


@pytest.mark.parametrize(
    ("document", "quoted", "changed"),
    [
        (
            "Die Mühle brannte 1901 ab. Sie steht noch.",
            "Die Mühle brannte 1901 ab.",
            "Die Mühle brannte ab.",
        ),
        (
            "Nicht alle Züge halten hier. Sie fahren.",
            "Nicht alle Züge halten hier.",
            "Alle Züge halten hier.",
        ),
        (
            "La torre è più alta del ponte. È bella.",
            "La torre è più alta del ponte.",
            "La torre è alta.",
        ),
        ("Дети не платят. Билет стоит 40 рублей.", "Дети не платят.", "Дети платят."),
        ("水車は焼失した。1820年に建てられた。", "1820年に建てられた。", "1830年に建てられた。"),
        (
            "所有孩子可以借五本书。馆内不得饮食。",
            "所有孩子可以借五本书。",
            "有些孩子可以借五本书。",
        ),
        ("ห้องสมุดเปิดเก้าโมง ห้ามนำอาหารเข้ามา", "ห้ามนำอาหารเข้ามา", "นำอาหารเข้ามา"),
        ("لا يسمح بإدخال الطعام. بني عام 1930.", "لا يسمح بإدخال الطعام.", "يسمح بإدخال الطعام."),
        ("भोजन लाना मना है। सभी आते हैं।", "सभी आते हैं।", "कुछ आते हैं।"),
        ("음식은 가지고 올 수 없다. 아홉 시에 연다.", "아홉 시에 연다.", "열 시에 연다."),
    ],
)
def test_other_languages_are_quoted(document: str, quoted: str, changed: str):
    assert entails(f"Title: 1\n{document}", quoted)
    assert not entails(f"Title: 1\n{document}", changed)
    assert not entails(f"Title: {quoted}\n{document}", quoted)  # a bare title


def test_what_it_cannot_do_is_said_once(capsys: pytest.CaptureFixture[str]):
    lexical._say.cache_clear()
    for _ in range(2):
        entails(FILM, "Silver River was directed by Anna Berg.")
    (line,) = capsys.readouterr().err.splitlines()
    assert "what a document says in other words is refused" in line
    for _ in range(2):
        entails("Дети не платят. Билет стоит 40 рублей.", "Дети не платят.")
    (line,) = capsys.readouterr().err.splitlines()
    assert "negations of English only" in line


QUOTES = Path(__file__).parents[3] / "shared" / "data" / "quotes.jsonl"


@pytest.mark.skipif(not QUOTES.is_file(), reason="needs ../shared/data/quotes.jsonl")
def test_quotes_of_real_passages_are_told_from_changed_ones():
    rows = [json.loads(line) for line in QUOTES.read_text(encoding="utf-8").splitlines()]
    premise = "Title: {title}\n{document}"
    pairs = [
        Pair(premise.format_map(row).removeprefix("Title: \n"), row["sentence"]) for row in rows
    ]
    shares: dict[bool, list[bool]] = {True: [], False: []}
    for row, decision in zip(rows, LexicalVerifier().entails(pairs), strict=True):
        shares[row["supported"]].append(decision)
    assert sum(shares[True]) >= 0.98 * len(shares[True])
    assert sum(shares[False]) <= 0.03 * len(shares[False])


@pytest.mark.parametrize(
    "text",
    [
        *("a" * 100_000, "(" * 100_000, "a.b'c/" * 10_000, "😀" * 10_000, "[1] " * 1_000),
        *("Anna Berg " * 5_000, "\ud800 Anna \udfff", "שלום עולם", "\0\n \n"),
    ],
)
def test_any_text_is_read(text: str):
    assert not entails(FILM, text)
    assert not entails(text, "Silver River was directed by Anna Berg.")
    assert not entails(text, f"Which films were directed by Anna Berg? {text}")


def test_tags_of_html_are_not_read():
    page = "<h1>The mill</h1><p>The <b>mill</b> was built by <a href='x'>John Hale</a>.</p><p>"
    assert entails(page, "The mill was built by John Hale.")
    assert not entails(page, "The mill was built by John Hill.")
    assert entails(f"{page}It is <= 9 m high.", "It is <= 9 m high.")
    assert entails("<p>Mr&nbsp;Hale built the R&amp;D mill.", "Mr Hale built the R&D mill.")


def test_it_says_what_its_decisions_depend_on():
    verifier = LexicalVerifier()
    assert verifier.identity == "lexical 5"
    assert set(verifier.provenance) == {"kind", "version", "spacy", "nltk"}
    assert (verifier.provenance["kind"], verifier.provenance["version"]) == ("lexical", 5)
