"""Cited answers from a large model behind an OpenAI-compatible endpoint.

Whatever was paid for is kept: every answer goes into a journal as it comes, under a digest of all
that it was asked with, and no run asks the same again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeGuard

from citepipe.data.example import Example
from citepipe.data.prompts import Prompt, fit
from citepipe.errors import InputError
from citepipe.generate.client import AttemptError, Client, RefusedError, one_line, parse_json
from citepipe.options import EndpointOptions, PromptOptions
from citepipe.progress import Progress, say
from citepipe.runstate import append_journal, read_journal
from citepipe.teach.account import Account, Budget, Reply, cost_of, estimated_tokens
from citepipe.text.normalize import clean_output

_OF_ONE_QUESTION = frozenset({400, 413, 422})
"""Statuses by which a single question may be refused (a content filter, its length)."""

REFUSALS_AT_FIRST = 5
REFUSALS_IN_A_ROW = 50
"""So many refusals, before the first answer or without one between them, are no longer the
questions' fault."""

_MOST_TOKENS = 10**9
_THOUGHTS = re.compile(r"\s*<think>.*?(?:</think>|\Z)", re.DOTALL)


class Endpoint:
    """Asks questions of a large model, each at most once.

    Args:
        options: where it is and what it may cost.
        prompt: how it is asked.
        journal: where every answer is written down.
        client: asks; by default one of its own.
        now: the clock that requests are paced by, in seconds.

    Attributes:
        account: what was asked for and spent, by earlier runs too.

    Raises:
        InputError: no model is named, there is no key where there should be one, or the journal
            is none.
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
        self._budget = Budget(options, self.account)
        self._client = client or Client(options)
        # An answer may repeat it, and is written down.
        self._key = os.environ.get(options.api_key_variable or "", "").strip()
        self._now = now
        self._next_start = 0.0
        self._freed = asyncio.Event()
        self._has_failed = False
        self._journal = journal
        journal.parent.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Reply] = {}
        for record in read_journal(journal):
            asked, reply = _known(record, journal)
            self._known[asked] = reply
            self.account.add(reply)
        # Refusals that no answer has followed yet; they are not believed before.
        self._refused: list[str] = []
        self._last_refusal = ""

    def answer(self, examples: Sequence[Example]) -> list[Example]:
        """The examples with the model's cited answers as their `output`.

        Those that it refuses or does not finish keep none.

        Raises:
            InputError: the endpoint is wrong, gone, or about to cost more than it may; what came
                until then is kept, and the same call goes on from there.
        """
        prompts = [self._prompt(example) for example in examples]
        bodies = [self._body(prompt) for prompt in prompts]
        keys = [_digest(body) for body in bodies]
        open_keys = dict(zip(keys, bodies, strict=True))
        todo = [(key, body) for key, body in open_keys.items() if key not in self._known]
        known = len(open_keys) - len(todo)
        progress = Progress("teacher", len(open_keys), "answers", done=known, patient=True)
        account = self.account

        def done(item: tuple[str, dict[str, Any]], reply: Reply | None) -> None:
            if reply is not None:
                self._keep(item[0], reply)
            else:
                self._refused.append(item[0])
            tokens = account.prompt_tokens + account.answer_tokens
            progress.advance(tokens=tokens, cost=account.cost)

        self._has_failed = False
        if todo:
            self._client.each(todo, lambda item: self._ask(item[1]), done)
        if self._known:
            self._believe_refusals()
        self._say_what_is_missing(set(keys), sum(prompt.shortened for prompt in prompts))
        return [
            replace(example, output=_output(self._known.get(key)))
            for example, key in zip(examples, keys, strict=True)
        ]

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _keep(self, key: str, reply: Reply) -> None:
        self._believe_refusals()
        self._write_down(key, reply)

    def _believe_refusals(self) -> None:
        for key in self._refused:
            self._write_down(key, Reply("", "refused", 0, 0, estimated=False, cost=0.0))
        self._refused.clear()

    def _write_down(self, key: str, reply: Reply) -> None:
        append_journal(self._journal, [{"asked": key, "reply": asdict(reply)}])
        self._known[key] = reply
        self.account.add(reply)

    def _say_what_is_missing(self, keys: set[str], shortened: int) -> None:
        replies = [self._known[key] for key in keys if key in self._known]
        cut = sum(reply.is_cut for reply in replies)
        refused = len(keys) - sum(reply.is_whole for reply in replies) - cut
        if cut or refused:
            words = f" (the last one: {self._last_refusal})" if self._last_refusal else ""
            say(
                f"teacher: {refused} questions refused{words}, {cut} answers cut off at "
                "max_tokens; they are left without an answer"
            )
        lines = sum(reply.is_whole and "\n" in reply.text for reply in replies)
        if lines:
            say(f"teacher: of {lines} answers of several lines only the first line is used")
        if shortened:
            say(f"teacher: documents of {shortened} prompts were shortened to fit max_input_tokens")

    def _prompt(self, example: Example) -> Prompt:
        return fit(example, self.prompt, lambda text: range(estimated_tokens(text)), "".join)

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        """What is sent for a question."""
        said = [] if self.options.system is None else [("system", self.options.system)]
        said += [
            ("assistant" if place % 2 else "user", message)
            for place, message in enumerate(prompt.messages)
        ]
        body: dict[str, Any] = {
            "model": self.options.model,
            "messages": [{"role": role, "content": text} for role, text in said],
            self.options.tokens_key: self.options.max_tokens,
        }
        if self.options.temperature is not None:
            body["temperature"] = self.options.temperature
        return body

    async def _ask(self, body: dict[str, Any]) -> Reply | None:
        """One answer; None if this question was refused."""
        texts = [message["content"] for message in body["messages"]]
        most = await self._room(texts)
        tokens = sum(estimated_tokens(text) for text in texts)
        try:
            return await self._client.ask(
                "POST",
                "chat/completions",
                self._reader(texts),
                body,
                before=lambda: self._pace(tokens),
            )
        except RefusedError as error:
            self._last_refusal = error.message or str(error.status)
            most_refusals = REFUSALS_IN_A_ROW if self._known else REFUSALS_AT_FIRST
            if error.status in _OF_ONE_QUESTION and len(self._refused) + 1 < most_refusals:
                return None
            self._has_failed = True
            raise
        except InputError:
            self._has_failed = True
            raise
        finally:
            self._budget.give_back(*most)
            self._freed.set()

    async def _room(self, texts: list[str]) -> tuple[int, int]:
        """Wait until another question stays below the cap, whatever it and those under way cost."""
        while True:
            most = self._budget.most_tokens(texts)
            if self._budget.has_room(*most):
                self._budget.take(*most)
                return most
            if not self._budget.under_way or self._has_failed:
                self._has_failed = True
                raise self._budget.exhausted()
            self._freed.clear()
            await self._freed.wait()

    async def _pace(self, prompt_tokens: int) -> None:
        """Wait until the next request may be begun.

        Raises:
            InputError: another question has failed for good meanwhile, which ends it all.
        """
        options = self.options
        seconds = 0.0
        if options.requests_per_minute is not None:
            seconds = 60 / options.requests_per_minute
        if options.tokens_per_minute is not None:
            tokens = prompt_tokens + options.max_tokens
            seconds = max(seconds, 60 * tokens / options.tokens_per_minute)
        start = max(self._now(), self._next_start)
        self._next_start = start + seconds
        while not self._has_failed and (left := start - self._now()) > 0:
            await asyncio.sleep(min(left, 1.0))
        if self._has_failed:
            raise InputError("another question failed")

    def _reader(self, texts: list[str]) -> Callable[[bytes], Reply]:
        """Makes a reply of what comes for a prompt."""

        def read(data: bytes) -> Reply:
            text, finish, told = _read(data)
            estimated = told is None
            sent, answered = told or (
                sum(estimated_tokens(message) for message in texts),
                estimated_tokens(text),
            )
            text = _THOUGHTS.sub("", text, count=1).strip()
            if self._key:
                text = text.replace(self._key, "***")
            cost = cost_of(sent, answered, self.options)
            return Reply(text, finish, sent, answered, estimated, cost)

        return read


def _output(reply: Reply | None) -> str | None:
    """An answer as ALCE reads it, in one line; None if there is no whole one."""
    if reply is None or not reply.is_whole:
        return None
    return clean_output(reply.text) or None


def _read(data: bytes) -> tuple[str, str, tuple[int, int] | None]:
    """Text, reason to end, and tokens of prompt and answer if they are told."""
    value = parse_json(data)
    try:
        [choice, *_] = value["choices"]
        text = choice["message"].get("content") or ""
        finish = choice.get("finish_reason") or "stop"
    except (TypeError, KeyError, ValueError, AttributeError):
        raise AttemptError(_words_of_error(value)) from None
    if isinstance(text, list):
        # OpenAI's other form: a list of parts.
        parts = [part.get("text") for part in text if isinstance(part, dict)]
        text = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(text, str) or not isinstance(finish, str):
        raise AttemptError("sent a chat completion without text")
    usage = value.get("usage")
    told = usage if isinstance(usage, dict) else {}
    sent, answered = told.get("prompt_tokens"), told.get("completion_tokens")
    counts = (sent, answered) if _is_count(sent) and _is_count(answered) else None
    return _unicode(text), _unicode(finish), counts


def _words_of_error(value: Any) -> str:
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        error = error.get("message") or error
    return f"sent an error: {one_line(str(error))}" if error else "sent no chat completion"


def _unicode(text: str) -> str:
    """The text, with a question mark for every half of a character."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MOST_TOKENS


def _known(record: Any, journal: Path) -> tuple[str, Reply]:
    """A line of the journal."""
    try:
        asked, reply = record["asked"], Reply(**record["reply"])
    except (TypeError, KeyError):
        asked, reply = None, Reply("", "", -1, -1, estimated=False, cost=0.0)
    is_text = all(isinstance(text, str) for text in (asked, reply.text, reply.finish))
    counts = _is_count(reply.prompt_tokens) and _is_count(reply.answer_tokens)
    if not (is_text and counts and isinstance(reply.cost, float)):
        raise InputError(f"{journal}: expected the journal of a teacher, remove it to ask anew")
    return asked, reply


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
