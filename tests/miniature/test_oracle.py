import json
from pathlib import Path

import pytest

from citepipe.errors import InputError
from citepipe.miniature.language import document_facts
from citepipe.miniature.oracle import Oracle, load_oracle
from citepipe.verify.base import Pair

FILM = "Title: Silver River\nThe 1972 film Silver River was directed by Anna Berg."
OTHER = "Title: Silver River\nThe 1990 film Silver River starred Otto Lind."
PERSON = "Title: Anna Berg\nThe singer Anna Berg was born in Oslo."


@pytest.fixture
def oracle(tmp_path: Path) -> Oracle:
    facts = {}
    for passage in (FILM, OTHER, PERSON):
        facts[passage] = [list(fact) for fact in document_facts(passage.split("\n")[1])]
    path = tmp_path / "world.json"
    path.write_text(json.dumps(facts))
    return load_oracle(path)


@pytest.mark.parametrize(
    ("premise", "hypothesis", "entailed"),
    [
        (FILM, "The 1972 film Silver River was directed by Anna Berg.", True),
        (FILM, "Anna Berg directed Silver River.", True),
        (FILM, "The 1990 film Silver River was directed by Anna Berg.", False),
        (OTHER, "The 1972 film Silver River was directed by Anna Berg.", False),
        (FILM, "Silver River was directed by Otto Lind.", False),
        (FILM, "Silver River.", False),
        (FILM, "Silver River", False),
        (FILM, "directed by Anna Berg.", False),
        (FILM, "", False),
        (PERSON, "Anna Berg was born in Oslo and directed Silver River.", False),
        (f"{PERSON}\n{FILM}", "Anna Berg was born in Oslo and directed Silver River.", True),
        (f"{FILM}\n{OTHER}\n{PERSON}", "Anna Berg was born in Oslo.", True),
        (FILM, "Which films were directed by Anna Berg? Silver River", True),
        (FILM, "Which films were directed by Otto Lind? Silver River", False),
        (OTHER, "Which films starred Otto Lind? Silver River", True),
        ("Title: Silver River\nNobody knows.", "Anna Berg directed Silver River.", False),
        ("", "Anna Berg directed Silver River.", False),
    ],
)
def test_passages(oracle: Oracle, premise: str, hypothesis: str, entailed: bool) -> None:
    assert oracle.entails([Pair(premise, hypothesis)]) == [entailed]


def test_claims_in_an_answer(oracle: Oracle) -> None:
    answer = "The 1972 film Silver River was directed by Anna Berg. Otto Lind lived in Rome."
    claims = ["Anna Berg directed Silver River.", "Otto Lind lived in Rome.", "Otto Lind lived."]
    assert oracle.entails([Pair(answer, claim) for claim in claims]) == [True, True, False]


def test_wrong_facts_file_names_the_passage(tmp_path: Path) -> None:
    path = tmp_path / "world.json"
    path.write_text('{"Title: A\\nB": [["born", "A"]]}')
    with pytest.raises(InputError, match="passage 'Title: A"):
        load_oracle(path)
