"""Where the cited answers that are distilled come from."""

from typing import Literal

from pydantic import Field

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
    price_input: float = Field(0.0, ge=0, description="Price of a million tokens of prompts.")
    price_output: float = Field(0.0, ge=0, description="Price of a million tokens of answers.")
    max_cost: float | None = Field(
        None, gt=0, description="Spending, of all runs on these results, ends before this."
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
    prompt: PromptOptions = Field(
        default_factory=lambda: PromptOptions(max_input_tokens=3500),
        description="endpoint: how it is asked. Tokens count as four characters each there.",
    )
    min_reward: float | None = Field(
        None,
        description="Cited answers, from wherever, whose citation rewards by the training verifier "
        "(`reward`) sum up to less are left out; null keeps all. With 0, what is wrong may not "
        "outweigh what is right.",
    )
