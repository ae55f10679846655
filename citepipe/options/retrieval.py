"""Where documents come from for questions that have none, and how they are found."""

from typing import Literal, Self

from pydantic import Field, model_validator

from citepipe.options.base import Options

Stemmer = Literal[
    "arabic",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "hungarian",
    "italian",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "spanish",
    "swedish",
]

StopWords = Literal[
    "danish",
    "dutch",
    "english",
    "french",
    "german",
    "italian",
    "norwegian",
    "portuguese",
    "russian",
    "spanish",
    "swedish",
    "turkish",
]


class RetrievalOptions(Options):
    """BM25 over texts of one's own: questions without documents get the best passages."""

    passages: list[str] = Field(
        min_length=1,
        description="Files, or folders with all below them: texts (.txt, .md) and passages (.jsonl "
        "with `text` and perhaps `title` and `id`; .tsv with id, text, title).",
    )
    cut: Literal["texts", "all", "nothing"] = Field(
        "texts",
        description="What is cut into passages: texts only (rows of .jsonl and .tsv are passages "
        "as they are), rows too, or nothing.",
    )
    words: int = Field(100, ge=10, description="Words per passage, at most (ALCE's have 100).")
    overlap: int = Field(
        0,
        ge=0,
        description="Words at the end of a passage, at most, that the next one begins with again "
        "(whole sentences).",
    )
    stemmer: Stemmer | None = Field(
        "english", description="Snowball's stemmer of this language; null compares whole words."
    )
    stop_words: StopWords | list[str] | None = Field(
        "english", description="Words that are not looked for: a language's, a list, or null."
    )
    method: Literal["lucene", "robertson", "atire", "bm25l", "bm25+"] = Field(
        "lucene", description="The variant of BM25 (Kamphuis et al. 2020)."
    )
    k1: float = Field(
        1.2, ge=0, description="How much a word counts that comes again in a passage."
    )
    b: float = Field(0.75, ge=0, le=1, description="How much long passages are held back.")
    delta: float = Field(
        0.5, ge=0, description="What a word counts at least, in bm25l and bm25+ only."
    )

    @model_validator(mode="after")
    def _next_passage_is_another(self) -> Self:
        if self.overlap > self.words // 2:
            raise ValueError(f"overlap: expected at most half of words ({self.words // 2})")
        return self
