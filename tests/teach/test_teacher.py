"""Citations after the fact."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.files import read_examples, write_examples
from citepipe.errors import InputError
from citepipe.judgement import judge
from citepipe.options import RewardOptions, TeacherOptions
from citepipe.teach.attribute import attribute
from citepipe.teach.teacher import teach
from citepipe.text.sentences import load_splitter
from citepipe.verify.base import Pair

SPLITTER = load_splitter("punkt-rules")


class AllWords:
    """A premise supports what consists of its words only."""

    name = "all words"

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        return [
            set(re.findall(r"\w+", hypothesis.lower())) <= set(premise.lower().split())
            for premise, hypothesis in pairs
        ]


DOCS = (Document("A", "red green"), Document("B", "blue"), Document("C", "blue white"))


@pytest.mark.parametrize(
    ("answer", "options", "attributed"),
    [
        # A sentence cites the smallest set, and of those the first.
        (
            "Red green. Blue. Red blue. Red white.",
            {},
            "Red green [1]. Blue [2]. Red blue [1][2]. Red white [1][3].",
        ),
        # References of the answer itself are taken out.
        ("Red green [7]. Blue.[12][3]", {}, "Red green [1]. Blue [2]."),
        # A sentence without support is dropped, or kept uncited.
        ("Red. Black.", {}, "Red [1]."),
        ("Red. Black.", {"keep_uncited": True}, "Red [1]. Black."),
        ("Black.", {}, None),
        ("Red blue.", {"at_most": 1}, None),
    ],
)
def test_attribution(answer: str, options: dict[str, object], attributed: str | None):
    example = Example("0", "eli5", "?", DOCS, answer=answer)
    teacher = TeacherOptions.model_validate({"citations": "attribute", **options})
    assert attribute([example], AllWords(), SPLITTER, teacher)[0].output == attributed


def test_every_attributed_sentence_is_read_as_one_statement_with_its_citations():
    answer = 'Anna said "red." (Blue is green.) He asked "is it red?" "Blue!" she said.'
    docs = (Document("A", "anna said red blue is green he asked is it she"),)
    example = Example("0", "eli5", "?", docs, answer=answer)
    [made] = attribute([example], AllWords(), SPLITTER, TeacherOptions(citations="attribute"))
    [judged] = judge([made], [made.read(made.output or "", SPLITTER)], AllWords())
    cited = [[c.number for c in v.statement.citations] for v in judged.statements]
    assert cited == [[1]] * len(list(SPLITTER(answer)))


def run_teach(folder: Path, examples: list[Example], **options: object) -> str:
    """The stage on these questions, as train and dev; `train.json` has the training examples."""
    write_examples(folder / "in.json", examples)
    given, journal = folder / "in.json", folder / "cache" / "teacher.jsonl"
    outs = folder / "train.json", folder / "dev.json"
    teacher = TeacherOptions.model_validate(options)
    return teach(given, given, teacher, "lexical", RewardOptions(), None, journal, *outs)


def outputs_of(folder: Path) -> list[str | None]:
    """What training questions are answered by in the end."""
    return [example.output for example in read_examples(folder / "train.json")]


def test_given_answers_are_kept_and_questions_without_one_too(tmp_path: Path):
    examples = [
        Example("0", "eli5", "?", DOCS, output="Red [1].", answer="Blue."),
        Example("1", "eli5", "??", DOCS, answer="Blue."),
    ]
    assert run_teach(tmp_path, examples) == "teach: train answers 1, dev answers 1"
    assert outputs_of(tmp_path) == ["Red [1].", None]
    with pytest.raises(InputError, match=r"in\.json: expected rows with the teacher's cited"):
        run_teach(tmp_path, [Example("0", "eli5", "?", DOCS)])


SILVER, GOLDEN = "Silver River was directed by Anna Berg", "Golden Hill was directed by Paul Stone"
DIRECTED = (Document("Silver River", f"{SILVER}."), Document("Golden Hill", f"{GOLDEN}."))
RIGHT, WRONG = f"{SILVER} [1].", f"{GOLDEN} [1]."


def test_the_training_verifier_attributes_what_documents_support_and_the_rest_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    answers = (f"{GOLDEN}.", "Nobody knows that.", None)
    examples = [
        Example(str(i), "eli5", f"Who is {i}?", DIRECTED, answer=answer)
        for i, answer in enumerate(answers)
    ]
    run_teach(tmp_path, examples, citations="attribute")
    assert outputs_of(tmp_path) == [f"{GOLDEN} [2].", None, None]
    assert (
        "teach: 2 of 3 train rows have no answer; of 1 human answers the documents support no "
        "sentence\n"
    ) in capsys.readouterr().err


def test_answers_that_earn_too_little_are_left_out(tmp_path: Path):
    # Right: + 0.2 for the sentence and + 0.2 for the citation; wrong: the same with a minus.
    outputs = [RIGHT, WRONG, f"{RIGHT} {WRONG}"]
    examples = [Example(x, "eli5", f"{x}?", DIRECTED, output=x) for x in outputs]
    kept_from = {-0.4: outputs, 0.0: [RIGHT, None, outputs[2]], 0.4: [RIGHT, None, None]}
    for least, kept in kept_from.items():
        run_teach(tmp_path, examples, min_reward=least)
        assert outputs_of(tmp_path) == kept
    with pytest.raises(InputError, match=r"3 answers earn less than teacher\.min_reward"):
        run_teach(tmp_path, examples, min_reward=0.5)
