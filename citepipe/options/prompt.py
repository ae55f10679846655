"""How a question and its documents are laid out for the model."""

from typing import Literal

from pydantic import Field

from citepipe.options.base import Options


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
    chat: Literal["auto", "template", "plain"] = Field(
        "auto",
        description="template: the prompt is a user's message in the tokenizer's chat template. "
        "plain: text that the answer goes on from. auto: template if the tokenizer has one.",
    )
    max_input_tokens: int = Field(
        1200, ge=8, description="Prompts longer than this get their documents shortened (tokens)."
    )
