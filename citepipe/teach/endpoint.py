"""Cited answers from a large model behind an OpenAI-compatible endpoint.

Whatever was paid for is kept: every answer goes into a journal as it comes, under a digest of all
that was sent for it, and no run requests the same again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.data.prompts import Prompt, fit
from citepipe.errors import InputError
from citepipe.generate.client import BrokenAnswerError, Client, RefusedError, each
from citepipe.options import EndpointOptions, TemplateOptions
from citepipe.progress import Progress, say
from citepipe.runstate import append_journal, read_journal
from citepipe.text.layout import without_thoughts

REFUSALS_IN_A_ROW = 20
"""So many are no longer the questions' fault."""

# Statuses by which a single question may be refused (a content filter, its length).
_OF_ONE_QUESTION = (400, 413, 422)
_CHARACTERS_PER_TOKEN = 4
_BYTES_AROUND_MESSAGE = 16
_MOST_TOKENS = 10**9


@dataclass(frozen=True, slots=True)
class Reply:
    """What came for one question: a text, or an empty one, why it ended (`stop`, `length`, ...),
    its tokens, with those of thoughts and `estimated` by characters where the endpoint did not
    return them, and what they cost at the prices of that time."""

    text: str
    finish: str
    prompt_tokens: int
    answer_tokens: int
    estimated: bool
    cost: float

    @property
    def is_whole(self) -> bool:
        """It is an answer, and not one that was cut off."""
        return bool(self.text) and self.finish not in ("length", "content_filter", "refused")


class Endpoint:
    """Sends questions to a large model, each at most once.

    Attributes:
        spent: what all answers cost, those of earlier runs too, at the prices of their time.
        label: what lines on stderr begin with.
    """

    def __init__(
        self,
        options: EndpointOptions,
        prompt: TemplateOptions,
        journal: Path,
        label: str = "teacher",
    ) -> None:
        if options.model is None:
            raise InputError("teacher.endpoint.model: missing, expected the name of a model")
        self.options = options
        self.prompt = prompt
        self.spent = 0.0
        self.label = label
        self._longest = options.max_tokens
        self._journal = journal
        journal.parent.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Reply] = {}
        try:
            for record in read_journal(journal):
                self._know(record["asked"], Reply(**record["reply"]))
        except (TypeError, KeyError):
            line = f"{journal}: expected the journal of a teacher, remove it to begin anew"
            raise InputError(line) from None
        self._client = Client(options)
        self._reserved: list[float] = []
        self._has_room = asyncio.Condition()
        self._has_failed = False
        self._refused = self._refused_in_a_row = 0
        self._last_refusal = ""

    def answer(self, examples: Sequence[Example]) -> list[Example]:
        """The examples with the model's cited answers as their `output`; those that it refuses or
        does not finish keep none.

        Raises:
            InputError: the endpoint is wrong, gone, or about to cost more than it may; what came
                until then is kept, and the same call goes on from there.
        """
        prompts = [
            fit(example, self.prompt, lambda text: range(_estimated([text])), "".join)
            for example in examples
        ]
        bodies = [self._body(prompt) for prompt in prompts]
        keys = [
            hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest() for body in bodies
        ]
        by_key = dict(zip(keys, bodies, strict=True))
        left = [key for key in by_key if key not in self._known]
        known = len(by_key) - len(left)
        progress = Progress(self.label, len(by_key), "answers", done=known, patient=True)

        async def ask(key: str) -> None:
            await self._ask(key, by_key[key])
            progress.advance(cost=self.spent)

        self._has_failed = False
        self._client.run(each(left, ask, self.options.concurrency))
        whole, cut = _whole_and_cut([self._known[k] for k in by_key if k in self._known])
        if whole < len(by_key):
            say(
                f"{self.label}: {len(by_key) - whole - cut} questions refused{self._last_refusal}, "
                f"{cut} answers cut off at max_tokens; they are left without an answer"
            )
        shortened = sum(prompt.shortened for prompt in prompts)
        if shortened:
            line = f"documents of {shortened} prompts were shortened to fit max_input_tokens"
            say(f"{self.label}: {line}")
        replies = [self._known.get(key) for key in keys]
        return [
            replace(e, output=(r.text or None) if r and r.is_whole else None)
            for e, r in zip(examples, replies, strict=True)
        ]

    def account(self) -> dict[str, float]:
        """What was requested and spent, over all runs and models on these results."""
        replies = list(self._known.values())
        whole, cut = _whole_and_cut(replies)
        return {
            "answers": len(replies),
            "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
            "answer_tokens": sum(reply.answer_tokens for reply in replies),
            "estimated": sum(reply.estimated for reply in replies),
            "cut": cut,
            "refused": len(replies) - whole - cut + self._refused,
            "cost": self.spent,
        }

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        """What is sent for a question; its digest is the answer's name in the journal."""
        options = self.options
        messages = [] if options.system is None else [{"role": "system", "content": options.system}]
        for place, text in enumerate(prompt.messages):
            messages.append({"role": "assistant" if place % 2 else "user", "content": text})
        body: dict[str, Any] = {"model": options.model, "messages": messages}
        body[options.tokens_key] = options.max_tokens
        if options.temperature is not None:
            body["temperature"] = options.temperature
        return body

    async def _ask(self, key: str, body: dict[str, Any]) -> None:
        """Receive one answer and write it down, unless this question is refused."""
        texts = [message["content"] for message in body["messages"]]

        async def receive() -> Reply:
            value = await self._client.api.post("/chat/completions", body=body, cast_to=object)
            return self._reply(value, texts)

        async with self._room(texts):
            try:
                reply = await self._client.attempt(receive)
            except RefusedError as error:
                self._refused_in_a_row += 1
                is_one = error.status in _OF_ONE_QUESTION
                if not is_one or self._refused_in_a_row >= REFUSALS_IN_A_ROW:
                    raise
                self._refused += 1
                self._last_refusal = f" (the last one: {error.words})"
                return
            append_journal(self._journal, [{"asked": key, "reply": asdict(reply)}])
            self._know(key, reply)
            self._refused_in_a_row = 0

    def _know(self, key: str, reply: Reply) -> None:
        self._known[key] = reply
        self.spent += reply.cost
        self._longest = max(self._longest, reply.answer_tokens)

    @asynccontextmanager
    async def _room(self, texts: list[str]) -> AsyncIterator[None]:
        """Wait until a question fits below the cap, whatever it and those under way cost.

        No tokenizer makes more tokens of a text than it has bytes. An answer may be billed for more
        than `max_tokens` where thoughts count too: what happened once may happen again.
        """
        cap = self.options.max_cost or math.inf
        sent = sum(len(text.encode()) + _BYTES_AROUND_MESSAGE for text in texts)
        async with self._has_room:
            while self.spent + sum(self._reserved) + (most := self._cost(sent)) > cap:
                if not self._reserved or self._has_failed:
                    raise InputError(
                        f"teacher.endpoint: the next answer could exceed max_cost {cap:g}, "
                        f"{self.spent:.4g} is spent for {len(self._known)} answers; they are kept, "
                        "with a higher cap the same command goes on"
                    )
                await self._has_room.wait()
            if self._has_failed:
                raise InputError("another question failed")
            self._reserved.append(most)
        try:
            yield
        except BaseException:
            self._has_failed = True
            raise
        finally:
            async with self._has_room:
                self._reserved.remove(most)
                self._has_room.notify_all()

    def _cost(self, prompt_tokens: int, answer_tokens: int | None = None) -> float:
        """The price of a prompt and an answer, by default one as long as the longest."""
        answered = self._longest if answer_tokens is None else answer_tokens
        options = self.options
        return (prompt_tokens * options.price_input + answered * options.price_output) / 1e6

    def _reply(self, value: Any, texts: list[str]) -> Reply:
        """What an endpoint returned for a prompt of these texts."""
        try:
            choice = value["choices"][0]
            content, finish = choice["message"].get("content"), choice.get("finish_reason")
            usage = value.get("usage") or {}
            counts: list[Any] = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
        except (TypeError, KeyError, IndexError, AttributeError):
            raise BrokenAnswerError(f"sent no chat completion: {value}") from None
        # It is paid for, so what cannot be read counts as no text.
        text = content if isinstance(content, str) else ""
        estimated = not all(type(n) is int and 0 <= n <= _MOST_TOKENS for n in counts)
        sent, answered = (_estimated(texts), _estimated([text])) if estimated else counts
        # An answer may repeat the key, and is written down; half a character cannot be.
        text = without_thoughts(text).strip()
        text = text.replace(self._client.key, "***") if self._client.key else text
        text = text.encode("utf-8", "replace").decode()
        cost = self._cost(sent, answered)
        return Reply(text, str(finish or "stop"), sent, answered, estimated, cost)


def _whole_and_cut(replies: Sequence[Reply]) -> tuple[int, int]:
    """How many answers there are, and how many that reached the limit of tokens."""
    whole = sum(reply.is_whole for reply in replies)
    return whole, sum(reply.finish == "length" for reply in replies)


def _estimated(texts: Iterable[str]) -> int:
    """Tokens of texts whose tokenizer is not at hand."""
    return sum(-(-len(text) // _CHARACTERS_PER_TOKEN) for text in texts)
