import json
from pathlib import Path

import pytest

from citepipe.errors import InputError
from citepipe.miniature.oracle import Oracle, load_oracle
from citepipe.verify.base import Pair

FILM = "Title: Silver River\nSilver River starred Anna Berg in 1972."
OTHER = "Title: Silver River\nSilver River starred Otto Lind in 1990."
PERSON = "Title: Anna Berg\nAnna Berg studied in Oslo in 1941."
FACTS = {
    FILM: [["starred", "Silver River", "Anna Berg", year] for year in ("", "1972")],
    OTHER: [["starred", "Silver River", "Otto Lind", year] for year in ("", "1990")],
    PERSON: [["studied", "Anna Berg", "Oslo", year] for year in ("", "1962")],
}


@pytest.fixture
def oracle(tmp_path: Path) -> Oracle:
    path = tmp_path / "world.json"
    path.write_text(json.dumps(FACTS))
    return load_oracle(path)


@pytest.mark.parametrize(
    ("premise", "hypothesis", "entailed"),
    [
        (FILM, "Silver River starred Anna Berg in 1972.", True),
        (FILM, "Silver River starred Anna Berg.", True),
        (FILM, "Anna Berg starred in Silver River in 1972.", True),
        (FILM, "Silver River starred Anna Berg in 1990.", False),
        (OTHER, "Silver River starred Anna Berg in 1972.", False),
        (FILM, "Silver River starred Otto Lind.", False),
        (FILM, "Silver River.", False),
        (FILM, "Silver River", False),
        (FILM, "starred Anna Berg.", False),
        (FILM, "", False),
        (PERSON, "Anna Berg studied in Oslo and starred in Silver River.", False),
        (f"{PERSON}\n{FILM}", "Anna Berg studied in Oslo and starred in Silver River.", True),
        (f"{FILM}\n{OTHER}\n{PERSON}", "Anna Berg studied in Oslo.", True),
        # The facts file is what counts, not the words of the passage.
        (PERSON, "Anna Berg studied in Oslo in 1962.", True),
        (FILM, "Which films had Anna Berg starred in? Silver River", True),
        (FILM, "Which films had Otto Lind directed? Silver River", False),
        (OTHER, "Which films had Otto Lind starred in? Silver River", True),
        ("Title: Silver River\nNobody knows.", "Anna Berg starred in Silver River.", False),
        ("", "Anna Berg starred in Silver River.", False),
    ],
)
def test_passages(oracle: Oracle, premise: str, hypothesis: str, entailed: bool) -> None:
    assert oracle.entails([Pair(premise, hypothesis)]) == [entailed]


def test_claims_in_an_answer(oracle: Oracle) -> None:
    answer = "Silver River starred Anna Berg in 1972. Otto Lind lived in Rome."
    claims = ["Anna Berg starred in Silver River.", "Otto Lind lived in Rome.", "Otto Lind lived."]
    assert oracle.entails([Pair(answer, claim) for claim in claims]) == [True, True, False]


def test_identity_follows_the_facts() -> None:
    assert Oracle({FILM: set()}).identity != Oracle({OTHER: set()}).identity
    assert Oracle({FILM: set()}).identity == Oracle({FILM: frozenset()}).identity


def test_wrong_facts_file_names_the_passage(tmp_path: Path) -> None:
    path = tmp_path / "world.json"
    path.write_text('{"Title: A\\nB": [["studied", "A"]]}')
    with pytest.raises(InputError, match="passage 'Title: A"):
        load_oracle(path)
