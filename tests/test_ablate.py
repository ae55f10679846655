"""Whether citations matter, with answers that can be worked out: by rules, and by BM25."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from citepipe.ablate import ablate, alter, shuffle
from citepipe.cli import main
from citepipe.data.example import Document, Example

DOCS = tuple(Document(name, f"{name} is here.") for name in ("Anna", "Oslo", "Rome"))


def answering(examples: Sequence[Example]) -> list[Example]:
    """Says what the documents on Anna and Oslo say, if they are there, and cites the first one for
    what it knows by itself."""
    answered = []
    for example in examples:
        places = {doc.title: number for number, doc in enumerate(example.docs, 1)}
        said = [f"{name} is here [{places[name]}]." for name in ("Anna", "Oslo") if name in places]
        answered.append(replace(example, output=" ".join([*said, "It is known [1]."])))
    return answered


def test_a_citation_matters_if_its_sentence_goes_with_its_document():
    first = answering([Example("1", "eli5", "Who?", DOCS)])
    found = ablate(first, answering)
    matters = [(own["text"], own["document"], own["matters"]) for own in found["citations"]]
    assert sorted(matters) == [
        ("Anna is here [1].", 1, True),
        ("It is known [1].", 1, False),
        ("Oslo is here [2].", 2, True),
    ]
    # Without Rome, which nothing cites, all three are said again.
    assert found["control"] == {"changed": 0, "of": 3}


MILLS = (
    Document("Arle Mill", "Built by John Hart in 1820, Arle Mill had 2.5 floors."),
    Document("Bent Mill", "It is old. Hart lived near Bent Mill."),
)
OTHER = (Document("Oslo", "Berg was born in Oslo near Rome."),)


def test_a_sentence_follows_if_it_says_what_was_changed_in_its_document():
    """Names and numbers of the sentence, but for Mill and Arle, of which the question speaks, Built
    and It, which begin sentences, and 1931, which the document does not have. Of the names that
    these documents do not have Oslo is the next after John, and then Rome after Hart."""
    said = "John Hart built it in 1820, with 2.5 floors, before 1931 [1]. It is Bent [2]. So it is."
    given: list[Example] = []

    def reading(examples: Sequence[Example]) -> list[Example]:
        """Reads the builder, and knows the year by heart."""
        given.extend(examples)
        return [
            replace(own, output=f"{own.docs[0].text[9:18]} built it in 1820 [1]. It is Bent [2].")
            for own in examples
        ]

    asked = [Example("1", "eli5", "Who built Arle Mill?", MILLS, output=said)]
    asked.append(Example("2", "eli5", "Who?", OTHER, output="He was [1]."))
    found = alter(asked, reading)
    builder, bent = found["sentences"]
    assert builder["changes"] == {"John": "Oslo", "Hart": "Rome", "1820": "1823", "2.5": "2.8"}
    assert given[0].docs[0].text == "Built by Oslo Rome in 1823, Arle Mill had 2.8 floors."
    assert given[0].docs[1] == MILLS[1]
    assert (builder["documents"], builder["answer"]) == ([1], "neither")
    # In the title too; it is said as before.
    assert bent["changes"].keys() == {"Bent"}
    assert given[1].docs[1].title == f"{bent['changes']['Bent']} Mill"
    assert (bent["documents"], bent["answer"], found["unaltered"]) == ([2], "same", 1)


def test_other_orders_show_what_is_cited_by_place():
    first = answering([Example("1", "eli5", "Who?", DOCS)])
    found = shuffle(first, answering, orders=200, seed=0)
    assert found["said_again"] == 100
    # What it knows by itself cites the right document only when that stays first: in one order
    # of three. So do two of three sentences, and a third of the last.
    assert found["same_documents"] == pytest.approx(100 * (2 + 1 / 3) / 3, abs=3)
    # Where Rome is first, in a third of the orders, two of three documents are shared.
    assert found["overlap"] == pytest.approx(100 * (2 + 2 / 3) / 3, abs=3)


def test_the_command_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, out = tmp_path / "questions.json", tmp_path / "found.json"
    docs = ["Anna Berg was born in Oslo.", "Anna Berg was born in Rome."]
    path.write_text(json.dumps([{"question": "Where was Anna Berg born?", "docs": docs}]))
    assert main(["ablate", str(path), "--alter", "--shuffle", "2", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 (100.0 %) citations matter" in printed
    # What is copied follows: Oslo and Rome become names of nowhere.
    assert "2 of 2 (100.0 %) sentences follow when names and numbers in what" in printed
    assert "100.0 % of the cited sentences are said again, 100.0 % of these with" in printed
    assert [own["document"] for own in json.loads(out.read_text())["citations"]] == [1, 2]
