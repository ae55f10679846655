"""What a large model's answers cost: counted, priced, and kept below a cap."""

from __future__ import annotations

from dataclasses import dataclass

from citepipe.errors import InputError
from citepipe.options import EndpointOptions

CHARACTERS_PER_TOKEN = 4
_BYTES_AROUND_MESSAGE = 16
_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Reply:
    """What came for one question.

    Attributes:
        text: the answer; empty if there is none.
        finish: `stop`, `length`, `content_filter` or what else the endpoint calls it; `refused` if
            it would not answer that question at all.
        prompt_tokens: tokens of the prompt.
        answer_tokens: tokens of the answer, those that were only thought included.
        estimated: the endpoint did not say how many tokens; they are counted by characters.
        cost: what they cost at the prices of that time.
    """

    text: str
    finish: str
    prompt_tokens: int
    answer_tokens: int
    estimated: bool
    cost: float

    @property
    def is_cut(self) -> bool:
        """It reached the limit of tokens."""
        return self.finish == "length"

    @property
    def is_whole(self) -> bool:
        """It is an answer, and not one that was cut off."""
        return bool(self.text) and self.finish not in ("length", "content_filter", "refused")


@dataclass(slots=True)
class Account:
    """What was asked for and spent on some results, over all runs and models.

    Attributes:
        answers: replies, of whatever kind.
        prompt_tokens: of all prompts.
        answer_tokens: of all answers.
        estimated: replies whose tokens the endpoint did not tell.
        cut: answers that reached the limit of tokens; they are not used.
        refused: questions that got no answer.
        cost: by the prices configured when they were asked.
        longest: tokens of the longest answer.
    """

    answers: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    estimated: int = 0
    cut: int = 0
    refused: int = 0
    cost: float = 0.0
    longest: int = 0

    def add(self, reply: Reply) -> None:
        """Count a reply."""
        self.answers += 1
        self.prompt_tokens += reply.prompt_tokens
        self.answer_tokens += reply.answer_tokens
        self.estimated += reply.estimated
        self.cut += reply.is_cut
        self.refused += not (reply.is_cut or reply.is_whole)
        self.cost += reply.cost
        self.longest = max(self.longest, reply.answer_tokens)


@dataclass(slots=True)
class Budget:
    """What may still be asked for, with what is under way counted at its most.

    Attributes:
        options: prices and caps.
        account: what is spent.
        under_way: questions that are being asked.
        cost: what those cost at most.
        tokens: what those take at most.
    """

    options: EndpointOptions
    account: Account
    under_way: int = 0
    cost: float = 0.0
    tokens: int = 0

    def most_tokens(self, messages: list[str]) -> tuple[int, int]:
        """The most that a prompt and its answer may be billed for.

        No tokenizer makes more tokens of a text than it has bytes. An answer may be billed for more
        than `max_tokens` where thoughts count too: what happened once may happen again.
        """
        sent = sum(len(text.encode()) + _BYTES_AROUND_MESSAGE for text in messages)
        return sent, max(self.options.max_tokens, self.account.longest)

    def has_room(self, sent: int, answered: int) -> bool:
        """Whether another question stays below both caps in any case."""
        cap, tokens = self.options.max_cost, self.options.max_tokens_total
        account = self.account
        cost = account.cost + self.cost + cost_of(sent, answered, self.options)
        taken = account.prompt_tokens + account.answer_tokens + self.tokens + sent + answered
        return (cap is None or cost <= cap) and (tokens is None or taken <= tokens)

    def take(self, sent: int, answered: int) -> None:
        """Count a question as under way."""
        self.under_way += 1
        self.cost += cost_of(sent, answered, self.options)
        self.tokens += sent + answered

    def give_back(self, sent: int, answered: int) -> None:
        """A question is no longer under way."""
        self.under_way -= 1
        self.tokens -= sent + answered
        # Nothing of rounding is left over.
        left = self.cost - cost_of(sent, answered, self.options)
        self.cost = left if self.under_way else 0.0

    def exhausted(self) -> InputError:
        """The line that says that nothing more can be asked."""
        account, options = self.account, self.options
        taken = account.prompt_tokens + account.answer_tokens
        caps = []
        if options.max_cost is not None:
            caps.append(f"max_cost {options.max_cost:g}, {account.cost:.4g} is spent")
        if options.max_tokens_total is not None:
            caps.append(f"max_tokens_total {options.max_tokens_total}, {taken} are taken")
        return InputError(
            f"teacher.endpoint: the next answer could exceed the cap ({'; '.join(caps)}) after "
            f"{account.answers} answers; they are kept, with a higher cap the same command goes on"
        )


def cost_of(prompt_tokens: int, answer_tokens: int, options: EndpointOptions) -> float:
    """What tokens cost by the configured prices."""
    of_prompt = prompt_tokens * options.price_input
    return (of_prompt + answer_tokens * options.price_output) / _MILLION


def estimated_tokens(text: str) -> int:
    """Tokens of a text where nobody tells them."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)
