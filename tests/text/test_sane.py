"""What a person reads of an answer: every form of citation and layout, one a row."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from citepipe.text import statements
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import Answer, Rules, notes_of, read_answer
from tests.text.odd_texts import DATASETS, ODD, TEXTS

SPLIT = load_splitter()
TITLES = ("Mill", "Bridge", "Tower", "Barn", "Old Dam")
M, B = "The mill was built in 1820", "Ann Lee opened the bridge"
NO_STOP = [(M, [1]), (B, [2])]

Read = list[tuple[str, list[int]]]


def read(raw: str, dataset: str = "own") -> Answer:
    return read_answer(raw, dataset, SPLIT, "sane", TITLES)


def read_as(raw: str, dataset: str = "own") -> Read:
    found = read(raw, dataset).statements
    return [(s.claim, [citation.number for citation in s.citations]) for s in found]


@pytest.mark.parametrize(
    ("form", "numbers"),
    [
        ("[1]", [1]),
        ("[1][3]", [1, 3]),
        ("[1] [3]", [1, 3]),
        ("[1], [3]", [1, 3]),
        ("[1] and [3]", [1, 3]),
        ("[1], [2], and [3]", [1, 2, 3]),
        ("[1]–[3]", [1, 2, 3]),
        ("[1, 3]", [1, 3]),
        ("[1,3]", [1, 3]),
        ("[1; 3]", [1, 3]),
        ("[1，3]", [1, 3]),
        ("[1、3]", [1, 3]),
        ("[1 3]", [1, 3]),
        ("[1 and 3]", [1, 3]),
        ("[1 & 3]", [1, 3]),
        ("[1, 2 and 3]", [1, 2, 3]),
        ("[1 und 3]", [1, 3]),
        ("[1-3]", [1, 2, 3]),
        ("[1–3]", [1, 2, 3]),
        ("[1 to 3]", [1, 2, 3]),
        ("[1, 3-5]", [1, 3, 4, 5]),
        ("[ 3 ]", [3]),
        ("[[3]]", [3]),
        (r"\[3\]", [3]),
        ("【3】", [3]),
        ("［3］", [3]),
        ("【3†source】", [3]),
        ("【4:3†source】", [3]),
        ("【3†L12-L20】", [3]),
        ("[^3]", [3]),
        ("[^1, ^3]", [1, 3]),
        ("[#3]", [3]),
        ("[Doc 3]", [3]),
        ("[doc_3]", [3]),
        ("[Document 1, Document 3]", [1, 3]),
        ("[Docs 1-3]", [1, 2, 3]),
        ("[Source: 3]", [3]),
        ("[citation:3]", [3]),
        ("[ref 3]", [3]),
        ("[see 3]", [3]),
        ("[No. 3]", [3]),
        ("{3}", [3]),
        ("[Document [3]]", [3]),
        ("^[3]", [3]),
        ("(#3)", [3]),
        ("(source: Document 3)", [3]),
        ("[Passage 3: Tower]", [3]),
        ("[3, p. 12]", [3]),
        ("[3](https://example.org/a_(b))", [3]),
        ("[3](Title: Tower)", [3]),
        ("([3])", [3]),
        ("(see [1, 3])", [1, 3]),
        ("(Sources: [1], [3])", [1, 3]),
        ("(Document 3)", [3]),
        ("(Docs 1 and 3)", [1, 3]),
        ("(source 3)", [3]),
        ("(3)", [3]),
        ("(1, 3)", [1, 3]),
        ("<sup>[3]</sup>", [3]),
        ("**[3]**", [3]),
        ("[0]", [0]),
        ("[9]", [9]),
    ],
)
@pytest.mark.parametrize("layout", ["{} {}.", "{}. {}", "{}{}.", "{}.{}", "{}. {}.", "- {} {}"])
def test_a_citation_of_any_form_is_read_before_and_behind_the_stop(
    form: str, numbers: list[int], layout: str
):
    text = f"{layout.format(M, form)} {B} {form}." if "-" not in layout else layout.format(M, form)
    first, *rest = read_as(text)
    assert (first[0].rstrip("."), first[1]) == (M, numbers)
    assert rest == ([] if "-" in layout else [(f"{B}.", numbers)])


@pytest.mark.parametrize(
    "text",
    [
        "{M}.¹ {B}.²",
        "{M}¹. {B}².",
        "{M}.<sup>1</sup> {B}.<sup>2</sup>",
        "{M} (1). {B} (2).",
        "[1] {M}. [2] {B}.",
        "[1] {M}.\n[2] {B}.",
        "{M}.\n[1]\n{B}.\n[2]",
        "{M}.\n\n[1]\n\n{B}. [2]",
        "{M} [1].\n{B} [2].",
        "{M} [1].\n\n{B} [2].",
        "{M} [1].\r\n\r\n{B} [2].\r\n",
        "The mill was built\nin 1820 [1]. Ann Lee opened\n the bridge [2].",
        "# Answer\n\n{M} [1]. {B} [2].",
        "**Answer**\n{M} [1]. {B} [2].",
        "Answer\n======\n{M} [1]. {B} [2].",
        "Answer:\n\n{M} [1]. {B} [2].",
        "---\n{M} [1].\n***\n{B} [2].",
        "Here is what the documents say:\n\n- {M} [1].\n- {B} [2].",
        "* {M}. [1]\n* {B}. [2]",
        "• {M} [1].\n  • {B} [2].",
        "1. {M} [1].\n2. {B} [2].",
        "i. {M} [1].\nii. {B} [2].",
        "1.{M} [1].\n2.{B} [2].",
        "{M} [1]\n{B} [2]",
        "Here is the answer:\n{M} [1]. {B} [2].",
        "{M} [1]. {B} [2].\n\nReferences\n----------\n1. Mill\n2. Bridge",
        "1) {M} [1].\n\n2) {B} [2].",
        "- [x] {M} [1].\n- [ ] {B} [2].",
        "> {M} [1].\n> {B} [2].",
        "**{M}** [1]. _{B}_ [2].",
        "**{M} [1].** {B} `[2]`.",
        "{M}[1].{B}[2].".replace(".{B}", ". {B}"),
        "The [mill](https://example.org) was built in 1820 [1]. {B} [2].",
        "| Fact | Source |\n|---|---|\n| {M}. | [1] |\n| {B}. | [2] |",
        "| Fact |\n| :- |\n| {M} [1]. |\n| {B} [2]. |",
        "```python\nx = [3]\n```\n{M} [1]. {B} [2].",
        "```markdown\n{M} [1]. {B} [2].\n```",
        "```\n{M} [1]. {B} [2].\n```",
        "<think>\nFirst [2], then [1].\n</think>\n\n{M} [1]. {B} [2].",
        "It is [3].\n</think>\n{M} [1]. {B} [2].",
        "<think></think>{M} [1]. {B} [2].<think>What else",
        "<|channel|>analysis<|message|>Hm [3].<|end|><|start|>assistant<|channel|>final<|message|>"
        "{M} [1]. {B} [2].<|end|>",
        "{M} [1]. {B} [2].</s>",
        "<answer>{M} [1].<br>{B} [2].</answer>",
        "{M} [1]. {B} [2].\n\nSources:\n[1] Mill\n[2] Bridge",
        "{M} [1]. {B} [2].\n\n## References\n\n1. Mill, p. 3\n2. https://example.org",
        "{M} [2]. {B} [1].\n\n**Sources:**\n- [1] Bridge\n- [2] Mill",
        "{M} [7]. {B} [8].\n\nSources:\n[7] Document 1\n[8] Document 2",
        "{M} [^7]. {B} [^8].\n\n[^7]: Mill. https://example.org\n[^8]: Bridge",
        "{M} [1]. {B} [2].\n\n[1] Mill\n[2] Bridge",
        "{M} [1]. {B} [2].\n\nSources: [1], [2]",
        "{M} [1]. {B} [2]. Sources: [1] Mill; [2] Bridge",
        "{M}. Source: [1]. {B}. Source: [2].",
        "{M}. [Mill](https://example.org/m) {B}. [Bridge](https://example.org/b)",
    ],
)
def test_of_any_layout_two_statements_are_read(text: str):
    found = read_as(text.format(M=M, B=B))
    assert [(claim.rstrip("."), numbers) for claim, numbers in found] == NO_STOP


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("磨坊建于1820年[1]。桥已开通[2]！", [("磨坊建于1820年。", [1]), ("桥已开通！", [2])]),
        ("磨坊建于1820年。[1]桥已开通？【2】", [("磨坊建于1820年。", [1]), ("桥已开通？", [2])]),
        ("「橋は開通。」[1]水車は古い。[2]", [("「橋は開通。」", [1]), ("水車は古い。", [2])]),
        ("बाँध पुराना है [1]। पुल नया है [2]।", [("बाँध पुराना है।", [1]), ("पुल नया है।", [2])]),
        ("هل بني؟ [1] نعم بني. [2]", [("هل بني؟", [1]), ("نعم بني.", [2])]),
        ("In the U.S. [1] and old. It is [2].", [("In the U.S. and old.", [1]), ("It is.", [2])]),
        ("Take vitamin C. [1] Eggs do.", [("Take vitamin C.", [1]), ("Eggs do.", [])]),
        # Not citations.
        ("It has 5 km². It is deep [1].", [("It has 5 km².", []), ("It is deep.", [1])]),
        ("There are (1) mills and (2) dams [3].", [("There are (1) mills and (2) dams.", [3])]),
        ("It took part in 3 (2) games.", [("It took part in 3 (2) games.", [])]),
        ("It says [sic] in [2012] and [a] no.", [("It says [sic] in [2012] and [a] no.", [])]),
        ("Press [1.5] or [24/7].", [("Press [1.5] or [24/7].", [])]),
        # A title on its own states as little as a line that introduces.
        ("# Mills\n## Old ones\nBoth:\n- Mill [1]", [("Mill", [1])]),
        # … unless there is nothing else, or it cites or ends as a sentence does.
        ("# Oslo", [("Oslo", [])]),
        ("## It is old.\n**It is [1]**\nYes.", [("It is old.", []), ("It is", [1]), ("Yes.", [])]),
        ("| Mill | 1820 [1] |\n| Dam | 1901. [2] |", [("Mill, 1820", [1]), ("Dam, 1901.", [2])]),
        ("[1]", [("", [1])]),
        ("[1]. [2].", [("", [1, 2])]),
        ("", []),
        ("<think>Only thought [1].", []),
        ("Cut off [1] in the mid [2", [("Cut off in the mid", [1, 2])]),
        ("It is cut in [1, 2", [("It is cut in [1, 2", [])]),
    ],
)  # fmt: skip
def test_what_is_a_statement_and_what_a_citation(text: str, expected: Read):
    assert read_as(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Paris [1], Rome [2].", [("Paris", [1]), ("Rome", [2])]),
        (
            "Paris [1, 2], Rome [3], and Oslo [1].",
            [("Paris", [1, 2]), ("Rome", [3]), ("Oslo", [1])],
        ),
        ("- Paris, France [1]\n- Rome [2]", [("Paris, France", [1]), ("Rome", [2])]),
        ("The cities are:\n1. Paris [1]\n2. Rome [2]", [("Paris", [1]), ("Rome", [2])]),
        ("Paris [1],\nRome [2]", [("Paris", [1]), ("Rome", [2])]),
        ("Paris [1]; Rome [2]", [("Paris", [1]), ("Rome", [2])]),
        ("Paris【1】，Rome【2】。", [("Paris", [1]), ("Rome", [2])]),
        ("Paris, , Rome.", [("Paris", []), ("", []), ("Rome", [])]),
        ("[1], [1], film [1]", [("", [1]), ("", [1]), ("film", [1])]),
        ("", [("", [])]),
    ],
)
def test_items_of_a_list(text: str, expected: Read):
    assert read_as(text, "qampari") == expected


def test_places_are_those_of_the_raw_answer():
    raw = f"<think>x</think>\n- **{M}**. [1, 2]\n- {B} [3]"
    first, second = read(raw).statements
    assert raw[first.start : first.end] == first.text == f"{M}**. [1, 2]"
    # The statement closes with its stop; what is behind belongs to it all the same.
    assert raw[first.last] == "."
    assert {raw[c.start : c.end] for c in first.citations} == {"[1, 2]"}
    assert (second.text, second.last) == (f"{B} [3]", len(raw))
    # Without a stop the line's end closes it.
    first, _ = read(f"- {M}\n- {B}").statements
    assert first.last == len(f"- {M}")


def test_what_came_in_parts_is_not_split():
    raw = "It is old. It is big [1]. Yes"
    parts = [(0, 25), (26, 29)]
    for rules in ("alce", "sane"):
        answer = read_answer(raw, "own", SPLIT, rules, parts=parts)  # type: ignore[arg-type]
        assert [(s.claim, len(s.citations)) for s in answer.statements] == [
            ("It is old. It is big.", 1),
            ("Yes", 0),
        ]


def test_what_is_not_read_is_counted_by_kind():
    texts = ["# A\nIt is [1].", "```c\nx\n```\nIt is [1].", "<think>a</think>It is [1]."]
    texts += ["It is [1].\nSources: [1] Mill", "It is [2012].", "It is [1]."]
    texts += [
        "By document 1, it is [1].",
        "It is [1a] {1} [1].",
        "As (Doc 1) has it, it is x^{2} [1].",
    ]
    assert notes_of(map(read, texts)) == [
        "1 of 9 answers have thoughts, which are not read",
        "1 of 9 answers have code, which is not read",
        "1 of 9 answers have headings, or lines that only introduce, which are not read",
        "1 of 9 answers have a list of sources, which is read only for what a number means",
        "1 of 9 answers have a year in brackets, which is read as text",
        "1 of 9 answers have a document named in words (`according to document 1`), which is no "
        "citation",
        "1 of 9 answers have brackets with a number that is read as text, such as [1a]",
        "1 of 9 answers have no citation that can be read",
    ]


@pytest.mark.parametrize("form", ["[{}]", "<sup>{}</sup>", "【{}†source】", "(Doc {})"])
def test_a_number_of_thousands_of_digits_is_no_document(form: str):
    [statement] = read(f"{M}.{form.format('1' + 5000 * '0')}").statements
    assert [citation.number > len(TITLES) for citation in statement.citations] == [True]


PIECES = st.sampled_from(
    [
        *(M, B, f"{M} [1]. ", f"{B}. [2] ", "[1][2]", " [1-3]", "【1†a】", "(Doc 1)", "(1)", "¹"),
        *(". ", "\n", "\n\n", "\n- ", "\n# ", "**", "| a | b |\n|--|--|\n", "```", "<think>"),
        *("</think>", "Sources:\n", "Sources: -", "[1] Mill", ":", ",", "。"),
        *("[a](#b)", "[[", "]]", "[2012]"),
        *("> ", "i. ", "a) ", "2.", "‣ ", "(see [1])", "<br>", "`", "_"),
    ]
)
LAID_OUT = st.one_of(TEXTS, st.lists(PIECES, max_size=14).map("".join))


@ODD
@given(LAID_OUT, DATASETS, st.sampled_from(["alce", "sane"]))
def test_places_lie_inside_the_answer(raw: str, dataset: str, rules: Rules):
    end = 0
    for statement in read_answer(raw, dataset, SPLIT, rules, TITLES).statements:
        assert end <= statement.start <= statement.end <= len(raw)
        said = raw[statement.start : statement.end]
        assert (said.replace("<|im_end|>", "") if rules == "alce" else said) == statement.text
        assert 0 <= statement.last <= len(raw)
        end = statement.end if rules == "alce" or dataset != "qampari" else 0
        for citation in statement.citations:
            assert statement.start <= citation.start < citation.end <= statement.end


@ODD
@example("\ue000", "qampari")
@given(LAID_OUT, DATASETS)
def test_the_quick_way_reads_what_the_long_one_reads(raw: str, dataset: str):
    with pytest.MonkeyPatch.context() as patch:
        quick = read(raw, dataset)
        patch.setattr(statements, "_read_plain", lambda *_: None)
        assert read(raw, dataset) == quick


@pytest.mark.parametrize(
    "piece",
    ["[1", "[1, ", "(Doc 1, ", "[1][", "| a ", "\n- ", "**a", "<think>", "[a](", "1. ", "[["],
)
def test_a_text_of_any_length_is_read(piece: str):
    read(piece * 5_000)
