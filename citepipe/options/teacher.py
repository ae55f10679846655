"""Where the cited answers that are distilled come from."""

from typing import Literal, Self

from pydantic import Field, model_validator

from citepipe.options.base import Options
from citepipe.options.prompt import PromptOptions
from citepipe.options.server import ServerOptions


class EndpointOptions(ServerOptions):
    """An OpenAI-compatible endpoint of chat completions that answers with citations."""

    model: str | None = Field(None, min_length=1, description="The model's name there.")
    concurrency: int = Field(8, ge=1, description="Requests under way at once.")
    system: str | None = Field(
        "You are a helpful assistant that answers the following questions with proper citations.",
        description="The system's message; null for none. ALCE's by default.",
    )
    temperature: float | None = Field(0.5, ge=0, description="Null leaves it to the endpoint.")
    max_tokens: int = Field(300, ge=1, description="Tokens of an answer, at most.")
    tokens_key: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the endpoint calls that limit."
    )
    requests_per_minute: float | None = Field(
        None, gt=0, description="No more than these are begun; null for no pacing of our own."
    )
    tokens_per_minute: float | None = Field(
        None,
        gt=0,
        description="No more than these are asked for, prompts by four characters a token and "
        "answers by `max_tokens`; null for no pacing of our own.",
    )
    price_input: float = Field(0.0, ge=0, description="Price of a million tokens of prompts.")
    price_output: float = Field(0.0, ge=0, description="Price of a million tokens of answers.")
    max_cost: float | None = Field(
        None,
        gt=0,
        description="Spending, of all runs on these results, ends before this. Of a question not "
        "yet answered a prompt counts a token per byte, and an answer `max_tokens` or as many as "
        "were billed for the longest one.",
    )
    max_tokens_total: int | None = Field(
        None, gt=0, description="The same for tokens, of prompts and answers together."
    )

    @model_validator(mode="after")
    def _check_prices(self) -> Self:
        if self.max_cost is not None and not (self.price_input or self.price_output):
            raise ValueError(
                "max_cost: expected price_input or price_output with it, without which nothing "
                "costs anything"
            )
        return self


class TeacherPromptOptions(PromptOptions):
    """How a large model is asked, of which no tokenizer is at hand."""

    max_input_tokens: int = Field(
        3500,
        ge=8,
        description="Prompts longer than this get their documents shortened (tokens, of four "
        "characters each).",
    )


class TeacherOptions(Options):
    """Where the cited answers that are distilled come from."""

    citations: Literal["given", "attribute", "endpoint"] = Field(
        "given",
        description="given: `output` of the rows. attribute: rows without one get their human "
        "answer, each sentence citing the smallest set of documents that the training verifier "
        "finds to support it. endpoint: rows without one are answered by a model that `endpoint` "
        "names.",
    )
    at_most: int = Field(3, ge=1, description="attribute: citations per sentence, at most.")
    keep_uncited: bool = Field(
        False, description="attribute: keep sentences that no set of documents supports."
    )
    endpoint: EndpointOptions | None = Field(
        None, description="endpoint: where it is, and what it may cost."
    )
    prompt: TeacherPromptOptions = Field(
        default_factory=lambda: TeacherPromptOptions(), description="endpoint: how it is asked."
    )
    min_reward: float | None = Field(
        None,
        description="Cited answers, from wherever, whose citation rewards by the training verifier "
        "(`reward`) sum up to less are left out; null keeps all. With 0, what is wrong may not "
        "outweigh what is right.",
    )
