"""Answers that decline, as models and people write them, and sentences that only look like it."""

import pytest

from citepipe.text.refusals import declines, refuses
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import read_answer

DECLINING = """
The documents do not say.
The documents don't say who built the mill.
I cannot answer this question.
I can't answer that based on the provided documents.
I apologize, but I couldn't find an answer to your question in the search results.
I’m sorry, but the provided documents do not contain information about who built the mill.
Sorry, I don't know.
We do not have enough information to answer.
Unfortunately, none of the provided documents mention the year.
There is no information in the documents about the builder.
No information about the builder is given in the documents.
It is not possible to determine the builder from the documents.
This question cannot be answered with the information provided.
Based on the given information, it is not possible to answer the question.
The answer to this question is not found in the provided documents.
Not enough information.
Unanswerable.
It is unclear from the documents who built it.
While the documents describe the mill, they do not say who built it.
Documents 1 and 2 do not mention the builder.
The documents you provided fail to mention the year.
I was unable to find this in the documents.
The exact date is not specified in the documents.
Since the documents do not mention the builder, I cannot answer the question.
However, the provided documents do not mention the year.
There is insufficient information to answer this question.
I'm not sure.
Cannot be determined from the context.
The documents are silent on this.
In den Dokumenten wird nicht erwähnt, wer die Mühle gebaut hat.
Ich kann die Frage nicht beantworten.
Es tut mir leid, aber die Quellen enthalten dazu keine Informationen.
Les documents ne le disent pas.
Je ne peux pas répondre à cette question.
Los documentos no lo mencionan.
Os documentos não mencionam o ano.
I documenti non dicono chi l'ha costruito.
В документах об этом не говорится.
文档中没有提到这一点。
根据提供的资料，无法回答这个问题。
文書には記載がありません。
"""

CLAIMS = """
I Don't Know How to Love Him is a song by Yvonne Elliman.
Can't Help Falling in Love was sung by Elvis.
The mill was not built in 1820.
The documents do not say who built it, but it was built in 1820.
The study did not find any effect of aspirin.
The results of the study show that aspirin does not provide any benefit.
There is no evidence that vaccines cause autism.
It is unclear whether dinosaurs were warm-blooded.
The article says the study did not find any effect.
No country has won more titles than Brazil.
He could not find an answer to the riddle.
According to the documents, the mill was built in 1820.
The Constitution does not mention political parties.
Unknown Pleasures is an album by Joy Division.
The information was not available to the public until 1990.
There is no mention of dinosaurs in the Bible.
Since the war, no information has been released.
They do not have stomachs.
It is not possible to sneeze with open eyes.
Die Quellen des Nils liegen nicht in Ägypten.
Le moulin n'a pas été construit en 1820.
这座磨坊不是1820年建的。
"""


def test_sentences_that_decline_are_told_from_claims():
    assert [s for s in DECLINING.strip().split("\n") if not declines(s)] == []
    assert [s for s in CLAIMS.strip().split("\n") if declines(s)] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry. The documents do not say. They only describe the mill [1].", True),
        ("The documents [1][2] do not say. Please ask its owner.", True),
        ("The mill was built in 1820 [1]. The documents do not say by whom.", False),
        ("The documents do not say. However, it was built in 1820 [1].", False),
        ("The documents do not say. The mill was built in 1820.", False),
        ("The documents do not say. It only stopped in 1931.", False),
        ("I am sorry.", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("rules", ["alce", "sane"])
@pytest.mark.parametrize("dataset", ["asqa", "qampari"])
def test_an_answer_declines_as_a_whole(text: str, rules: str, dataset: str, expected: bool):
    answer = read_answer(text, dataset, load_splitter(), rules)  # type: ignore[arg-type]
    assert refuses(answer, dataset == "qampari") is expected
