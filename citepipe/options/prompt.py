"""How a question and its documents are laid out for the model."""

from typing import Literal

from pydantic import Field

from citepipe.options.base import Options
from citepipe.options.data import Dataset


class PromptOptions(Options):
    """ALCE's prompt templates (`prompts/*_default.json`), or shorter ones."""

    instruction: str = Field(
        "Instruction: Write an accurate, engaging, and concise answer for the given question "
        "using only the provided search results (some of which might be irrelevant) and cite "
        "them properly. Use an unbiased and journalistic tone. Always cite for any factual "
        "claim. When citing several search results, use [1][2][3]. Cite at least one document "
        "and at most three documents in each sentence. If multiple documents support the "
        "sentence, only cite a minimum sufficient subset of the documents.",
        description="What the model is told to do; takes the place of {INST}.",
    )
    list_instruction: str | None = Field(
        None, description="The instruction for QAMPARI's lists; null takes `instruction`."
    )
    demo_prompt: str = Field(
        "{INST}\n\nQuestion: {Q}\n\n{D}\nAnswer:{A}",
        description="The whole prompt: {INST}, {Q} the question, {D} the documents, {A} nothing.",
    )
    doc_prompt: str = Field(
        "Document [{ID}](Title: {T}): {P}\n",
        description="One document: {ID} its number, {T} its title, {P} its text.",
    )
    files: dict[Dataset, str] = Field(
        default_factory=dict,
        description="Prompt files in ALCE's layout (`prompts/*_default.json`): for questions of "
        "that dataset their instruction and templates take the place of those here.",
    )
    shots: int = Field(
        0, ge=0, description="Demonstrations from the prompt file in front of a question."
    )
    demo_seed: int | None = Field(
        None, ge=0, lt=2**32, description="Draws the demonstrations, as ALCE; null: the first."
    )
    demo_documents: int | None = Field(
        None, ge=0, description="Documents of a demonstration; null for as many as it has, up to 5."
    )
    demo_turns: bool = Field(
        False,
        description="With a chat template, a demonstration is a message of the user and its "
        "answer, in front of the question's; else all is one message.",
    )
    documents: Literal["text", "summary", "extraction"] = Field(
        "text",
        description="What is shown of a document: all of it, or ALCE's shorter texts where it has "
        "them. `data.shorter` chooses documents to go with it.",
    )
    chat: Literal["auto", "template", "plain"] = Field(
        "auto",
        description="template: the prompt is a user's message in the tokenizer's chat template. "
        "plain: text that the answer goes on from. auto: template if the tokenizer has one.",
    )
    max_input_tokens: int = Field(
        1200, ge=8, description="Prompts longer than this get their documents shortened (tokens)."
    )
