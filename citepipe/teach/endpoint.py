"""Cited answers from a large model behind an OpenAI-compatible endpoint.

Whatever was paid for is kept: every answer goes into a journal as it comes, under a digest of all
that it was asked with, and no run asks the same again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.data.prompts import fit
from citepipe.errors import InputError
from citepipe.generate.client import AttemptError, Client, RefusedError, parse_json
from citepipe.options.prompt import PromptOptions
from citepipe.options.teacher import EndpointOptions
from citepipe.progress import Progress, say
from citepipe.runstate import append_journal, read_journal
from citepipe.text.normalize import clean_output

CHARACTERS_PER_TOKEN = 4
_MILLION = 1e6
_OF_ONE_QUESTION = frozenset({400, 413, 422})
"""Statuses by which a single question may be refused (a content filter, its length)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came for one question.

    Attributes:
        text: the answer; empty if there is none.
        finish: `stop`, `length`, `content_filter` or what else the endpoint calls it.
        prompt_tokens: tokens of the prompt.
        answer_tokens: tokens of the answer, those that were only thought included.
        estimated: the endpoint did not say how many tokens; they are counted by characters.
    """

    text: str
    finish: str
    prompt_tokens: int
    answer_tokens: int
    estimated: bool

    @property
    def is_whole(self) -> bool:
        """It is an answer, and not one that was cut off."""
        return bool(self.text.strip()) and self.finish not in ("length", "content_filter")


@dataclass(slots=True)
class Account:
    """What was asked for and spent on some results, over all runs.

    Attributes:
        answers: replies, of whatever kind.
        prompt_tokens: of all prompts.
        answer_tokens: of all answers.
        estimated: replies whose tokens were not told by the endpoint.
        cut: answers that reached the limit of tokens; they are not used.
        refused: questions that got no answer.
        cost: by the configured prices.
    """

    answers: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    estimated: int = 0
    cut: int = 0
    refused: int = 0
    cost: float = 0.0

    def add(self, reply: Reply, options: EndpointOptions) -> None:
        """Count a reply."""
        self.answers += 1
        self.prompt_tokens += reply.prompt_tokens
        self.answer_tokens += reply.answer_tokens
        self.estimated += reply.estimated
        self.cut += reply.finish == "length"
        self.refused += reply.finish != "length" and not reply.is_whole
        self.cost += cost_of(reply.prompt_tokens, reply.answer_tokens, options)


class Endpoint:
    """Asks questions of a large model, each at most once.

    Args:
        options: where it is and what it may cost.
        prompt: how it is asked.
        journal: where every answer is written down.
        client: asks; by default one of its own.
        now: the clock that requests are paced by, in seconds.

    Raises:
        InputError: no model is named, or there is no key where there should be one.
    """

    def __init__(
        self,
        options: EndpointOptions,
        prompt: PromptOptions,
        journal: Path,
        client: Client | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if options.model is None:
            raise InputError("teacher.endpoint.model: missing, expected the name of a model")
        self.options = options
        self.prompt = prompt
        self.account = Account()
        self._client = client or Client(options)
        self._now = now
        self._next_start = 0.0
        self._reserved = 0.0
        self._answered = False
        self._journal = journal
        journal.parent.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Reply] = {}
        for record in read_journal(journal):
            try:
                reply = Reply(**record["reply"])
                self._known[record["asked"]] = reply
            except (TypeError, KeyError):
                raise InputError(
                    f"{journal}: expected the journal of a teacher, remove it to ask anew"
                ) from None
            self.account.add(reply, options)

    def answer(self, examples: Sequence[Example]) -> list[Example]:
        """The examples with the model's cited answers as their `output`.

        Those that it refuses or does not finish keep none.

        Raises:
            InputError: the endpoint is wrong, gone, or about to cost more than it may; what came
                until then is kept, and the same call goes on from there.
        """
        bodies = [self._body(example) for example in examples]
        keys = [_digest(body) for body in bodies]
        open_keys = dict(zip(keys, bodies, strict=True))
        todo = [(key, body) for key, body in open_keys.items() if key not in self._known]
        progress = Progress(
            "teacher", len(open_keys), "answers", done=len(open_keys) - len(todo), patient=True
        )

        def done(item: tuple[str, dict[str, Any]], reply: Reply | None) -> None:
            if reply is not None:
                record = {"asked": item[0], "reply": asdict(reply)}
                append_journal(self._journal, [record])
                self._known[item[0]] = reply
                self.account.add(reply, self.options)
            else:
                self.account.refused += 1
            progress.advance(cost=self.account.cost)

        if todo:
            self._client.each(todo, lambda item: self._ask(item[1]), done)
        if self.account.cut or self.account.refused:
            say(
                f"teacher: {self.account.refused} questions refused, {self.account.cut} answers "
                "cut off at max_tokens; they are left without an answer"
            )
        return [
            replace(example, output=_text(self._known.get(key)))
            for example, key in zip(examples, keys, strict=True)
        ]

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _body(self, example: Example) -> dict[str, Any]:
        """What is sent for a question."""
        asked = fit(example, self.prompt, lambda text: range(_tokens(text))).text
        system = self.options.system
        messages = [] if system is None else [{"role": "system", "content": system}]
        body: dict[str, Any] = {
            "model": self.options.model,
            "messages": [*messages, {"role": "user", "content": asked}],
            self.options.tokens_key: self.options.max_tokens,
        }
        if self.options.temperature is not None:
            body["temperature"] = self.options.temperature
        return body

    async def _ask(self, body: dict[str, Any]) -> Reply | None:
        """One answer; None if this question was refused."""
        prompt_tokens = sum(_tokens(message["content"]) for message in body["messages"])
        at_most = cost_of(prompt_tokens, self.options.max_tokens, self.options)
        self._check_cap(at_most)
        self._reserved += at_most
        try:
            await self._pace()
            reply = await self._client.ask(
                "POST", "chat/completions", lambda data: _reply(data, prompt_tokens), body
            )
        except RefusedError as error:
            # The first refusal is of the request's form, which all have in common.
            if error.status in _OF_ONE_QUESTION and self._answered:
                return None
            raise
        finally:
            self._reserved -= at_most
        self._answered = True
        return reply

    def _check_cap(self, at_most: float) -> None:
        cap = self.options.max_cost
        if cap is not None and self.account.cost + self._reserved + at_most > cap:
            raise InputError(
                f"teacher.endpoint.max_cost: {cap:g} could be exceeded by the next answer, "
                f"{self.account.cost:.4g} is spent on {self.account.answers}; what was answered is "
                "kept, with a higher cap the same command goes on"
            )

    async def _pace(self) -> None:
        """Wait until the next request may be begun."""
        if self.options.requests_per_minute is None:
            return
        start = max(self._now(), self._next_start)
        self._next_start = start + 60 / self.options.requests_per_minute
        await asyncio.sleep(start - self._now())


def cost_of(prompt_tokens: int, answer_tokens: int, options: EndpointOptions) -> float:
    """What tokens cost by the configured prices."""
    of_prompt = prompt_tokens * options.price_input
    return (of_prompt + answer_tokens * options.price_output) / _MILLION


def _text(reply: Reply | None) -> str | None:
    """An answer as ALCE reads it, in one line; None if there is no whole one."""
    if reply is None or not reply.is_whole:
        return None
    return clean_output(reply.text) or None


def _reply(data: bytes, prompt_tokens: int) -> Reply:
    value = parse_json(data)
    try:
        [choice, *_] = value["choices"]
        text = choice["message"].get("content") or ""
        finish = choice.get("finish_reason") or "stop"
    except (TypeError, KeyError, ValueError, AttributeError):
        raise AttemptError("sent no chat completion") from None
    if not isinstance(text, str) or not isinstance(finish, str):
        raise AttemptError("sent a chat completion without text")
    usage = value.get("usage")
    told = usage if isinstance(usage, dict) else {}
    sent, answered = told.get("prompt_tokens"), told.get("completion_tokens")
    if isinstance(sent, int) and isinstance(answered, int) and min(sent, answered) >= 0:
        return Reply(text, finish, sent, answered, estimated=False)
    return Reply(text, finish, prompt_tokens, _tokens(text), estimated=True)


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
