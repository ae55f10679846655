"""Chat completions of an OpenAI-compatible endpoint, each requested once, counted and paid for.

Whatever was paid for is kept: every answer is handed on as it comes, under a digest of all that was
sent for it, and what is known is not requested again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from citepipe.errors import InputError
from citepipe.generate.client import BrokenAnswerError, Client, RefusedError, each
from citepipe.options import EndpointOptions
from citepipe.progress import Progress
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
    return them, and what they cost at the prices of that time. `support` is what a judge's answer
    says of its pair, from 0 to 1."""

    text: str
    finish: str
    prompt_tokens: int
    answer_tokens: int
    estimated: bool
    cost: float
    support: float | None = None

    @property
    def is_whole(self) -> bool:
        """It is an answer, and not one that was cut off."""
        return bool(self.text) and self.finish not in ("length", "content_filter", "refused")


class Chat:
    """Sends conversations to a large model, each at most once; of threads one at a time.

    Args:
        options: where the model is, and how it is queried.
        known: answers of earlier runs, by the digests of what was sent.
        keep: writes an answer down, under its digest; None if they are for this process only.
        label: what lines on stderr begin with.

    Attributes:
        asked: conversations that were answered or refused in this process.
        spent: what all answers cost, those of earlier runs too, at the prices of their time.
        refusal: in words the last refusal, of those questions that were refused.
    """

    def __init__(
        self,
        options: EndpointOptions,
        known: dict[str, Reply],
        keep: Callable[[str, Reply], None] | None,
        label: str,
    ) -> None:
        self.options = options
        self.label = label
        self.asked, self.spent = 0, 0.0
        self.refusal = ""
        self._longest = options.max_tokens
        self._known: dict[str, Reply] = {}
        for key, reply in known.items():
            self._know(key, reply)
        self._keep = keep
        self._client = Client(options)
        self._lock = threading.Lock()
        self._reserved: list[float] = []
        self._has_room = asyncio.Condition()
        self._has_failed = False
        self._refused = self._refused_in_a_row = 0

    def replies(self, conversations: Sequence[dict[str, Any]]) -> list[Reply | None]:
        """What the model replies to each of what is to be sent beside its name and limits; None
        where a question is refused.

        Raises:
            InputError: the endpoint is wrong, gone, or about to cost more than it may; what came
                until then is kept, and the same call goes on from there.
        """
        bodies = [self._body(conversation) for conversation in conversations]
        keys = [
            hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest() for body in bodies
        ]
        by_key = dict(zip(keys, bodies, strict=True))
        with self._lock:
            self._complete(by_key)
            return [self._known.get(key) for key in keys]

    def _complete(self, by_key: dict[str, dict[str, Any]]) -> None:
        """Ask for what is not known yet."""
        left = [key for key in by_key if key not in self._known]
        known = len(by_key) - len(left)
        progress = Progress(self.label, len(by_key), "answers", done=known, patient=True)

        async def ask(key: str) -> None:
            await self._ask(key, by_key[key])
            progress.advance(cost=self.spent)

        self._has_failed = False
        try:
            self._client.run(each(left, ask, self.options.concurrency))
        except InputError as error:
            kept = len(self._known) if self._keep else 0
            goes_on = f"; {kept} answers are kept, the same command goes on" if kept else ""
            raise InputError(f"{error}{goes_on}") from None

    def account(self) -> dict[str, float]:
        """What was requested and spent, over all runs and models on these results."""
        replies = list(self._known.values())
        whole, cut = whole_and_cut(replies)
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

    def _body(self, conversation: dict[str, Any]) -> dict[str, Any]:
        """All that is sent; its digest is the answer's name."""
        options = self.options
        body = {"model": options.model, **conversation, options.tokens_key: options.max_tokens}
        if options.temperature is not None:
            body["temperature"] = options.temperature
        return body

    async def _ask(self, key: str, body: dict[str, Any]) -> None:
        """Receive one answer and write it down, unless this question is refused."""
        texts = [message["content"] for message in body["messages"]]
        texts += [document["text"] for document in body.get("documents", ())]

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
                self.asked += 1
                self._refused += 1
                self.refusal = f" (the last one: {error.words})"
                return
            if self._keep:
                self._keep(key, reply)
            self._know(key, reply)
            self.asked += 1
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
                        f"{self.label}: expected a higher max_cost: the next answer could exceed "
                        f"{cap:g}, {self.spent:.4g} is spent"
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
        sent, answered = (tokens_of(texts), tokens_of([text])) if estimated else counts
        # An answer may repeat the key, and is written down; half a character cannot be.
        text = without_thoughts(text).strip()
        text = text.replace(self._client.key, "***") if self._client.key else text
        text = text.encode("utf-8", "replace").decode()
        cost = self._cost(sent, answered)
        return Reply(text, str(finish or "stop"), sent, answered, estimated, cost)


def whole_and_cut(replies: Sequence[Reply]) -> tuple[int, int]:
    """How many answers there are, and how many that reached the limit of tokens."""
    whole = sum(reply.is_whole for reply in replies)
    return whole, sum(reply.finish == "length" for reply in replies)


def tokens_of(texts: Iterable[str]) -> int:
    """Tokens of texts whose tokenizer is not at hand."""
    return sum(-(-len(text) // _CHARACTERS_PER_TOKEN) for text in texts)
