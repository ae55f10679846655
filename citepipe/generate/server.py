"""The generator behind an OpenAI-compatible server, such as vLLM."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import openai
from pydantic import BaseModel, Field, FiniteFloat

from citepipe.errors import InputError
from citepipe.generate.client import BrokenAnswerError, Client, RefusedError, each
from citepipe.generate.completion import Completion, Done, Request
from citepipe.generate.started import StartedServer
from citepipe.generate.text import Cut, Detokenizer
from citepipe.models.load import check_trained, is_whole
from citepipe.options import ServerOptions
from citepipe.progress import say
from citepipe.provenance import digest_of_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

START = (
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank 64 "
    "--generation-config vllm"
)
"""The command that starts a server which loads adapters by request."""


class _LogProbs(BaseModel):
    token_logprobs: list[FiniteFloat]


class _Choice(BaseModel):
    """A completion, or a part of one in a stream."""

    text: str
    finish_reason: Literal["stop", "length"] | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    logprobs: _LogProbs | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(max_length=1)


class _Model(BaseModel):
    """What a server has under a name: a base model, or an adapter of one (`parent`)."""

    id: str
    root: str | None = None
    parent: str | None = None


class _Models(BaseModel):
    data: list[_Model]


class _Server:
    """One server: its client, and the model that answers there.

    Attributes:
        model: its name.
        adapter: what is loaded under this name, if it is an adapter.
        has_answered: whether there has been a completion.
    """

    def __init__(self, options: ServerOptions, runner: asyncio.Runner) -> None:
        self.client, self.url, self._name = Client(options, runner), options.url, options.model
        self.model = ""
        self.adapter: Path | None = None
        self.has_answered = self._has_loaded = False

    def close(self) -> None:
        """Take off what was loaded, if that can be done, and leave."""
        if self._has_loaded:
            with suppress(InputError):
                self.client.run(self._post("/unload_lora_adapter", lora_name=self.model))
        self.client.close()

    async def choices(self, body: dict[str, Any]) -> AsyncGenerator[_Choice, None]:
        """The completion, whole or piece by piece; a server stops when its stream is left."""
        send, path = self.client.api.post, "/completions"
        if not body["stream"]:
            answer = await send(path, body=body, cast_to=object)
            for choice in _Completion.model_validate(answer).choices:
                yield choice
            return
        kind = openai.AsyncStream[object]
        stream = await send(path, body=body, cast_to=object, stream=True, stream_cls=kind)
        async with stream:
            try:
                async for event in stream:
                    for choice in _Completion.model_validate(event).choices:
                        yield choice
            except openai.APIError as error:
                problem = str(error.__cause__ or "") or error.message
                raise BrokenAnswerError(f"broke off its stream: {problem}") from None

    async def check(self, body: Mapping[str, Any], words: str) -> None:
        """Raise InputError with what the server refuses of such requests, unless it takes one of a
        single token; `words` are those of its first refusal."""
        least = {"model": self.model, "prompt": body["prompt"][:1], "max_tokens": 1}
        least["stream"] = False

        async def refuses(**more: Any) -> bool:
            try:
                await self._post("/completions", **least, **more)
            except RefusedError:
                return True
            return False

        more = {key: value for key, value in body.items() if key not in least}
        if not await refuses(**more):
            return
        keys = [key for key, value in more.items() if await refuses(**{key: value})]
        lacking = "token ids as a prompt" if await refuses() else ", ".join(keys) or "such requests"
        raise InputError(
            f"{self.url}: takes no {lacking} in /completions: {words}; expected a server like vLLM "
            "(as a teacher, any endpoint of chat completions does)"
        )

    async def find_model(self, base: str, trained: Path | None) -> None:
        """Set the name of the model that answers."""

        async def models() -> dict[str, _Model]:
            answer = await self.client.api.get("/models", cast_to=object)
            return {model.id: model for model in _Models.model_validate(answer).data}

        try:
            served = await self.client.attempt(models)
        except RefusedError as error:
            problem = f"/models answered {error.status}: {error.words}"
            raise InputError(
                f"{self.url}: does not say which models it serves; {problem}"
            ) from None
        url, name = self.url, self._name
        if name is not None and name not in served:
            names = ", ".join(served) or "nothing"
            raise InputError(f"{url}: expected it to serve server.model {name}, it serves {names}")
        bases = [key for key, model in served.items() if not model.parent]
        candidates = bases if name is None else [name]
        if not candidates:
            raise InputError(f"{url}: expected it to serve a model, it serves none")
        if trained is not None and is_whole(trained):
            candidates = [key for key in candidates if _is_same(str(trained), served[key])]
            if not candidates:
                raise InputError(
                    f"{url}: expected it to serve {trained}, of which all weights were trained: "
                    "only adapters are loaded by request; start it with that directory, it serves "
                    f"{', '.join(bases)}"
                )
        elif not _is_same(base, served[candidates[0]]):
            say(f"{url}: serves {candidates[0]}; model.base is {base}, expected the same model")
        self.model = candidates[0]
        if trained is not None and not is_whole(trained):
            self.adapter = trained.resolve()
            self.model = f"citepipe-{digest_of_path(trained)}"
            await self.load(self.adapter)

    async def load(self, adapter: Path) -> None:
        """Have an adapter loaded under the model's name."""
        try:
            await self._post("/load_lora_adapter", lora_name=self.model, lora_path=str(adapter))
        except RefusedError as error:
            if "already been loaded" in error.words:
                return
            if error.status == 405 or (error.status, error.words) == (404, "Not Found"):
                problem = f"loads no adapters by request; start it with: {START}"
            else:
                problem = f"the adapter {adapter} was not loaded: {error.words}"
            raise InputError(f"{self.url}: {problem}") from None
        self._has_loaded = True

    async def _post(self, path: str, **body: Any) -> None:
        """Send a request without retries: 500 is also what vLLM answers to a bad adapter."""
        api = self.client.api.with_options(max_retries=0)
        await self.client.attempt(lambda: api.post(path, body=body, cast_to=object))


class ServerGenerator:
    """Every sample is one request; a server batches them, and shares what they have in common. Of
    several servers one gets all that is asked of a prompt.

    Text and offsets come from the server's token ids through our own tokenizer, so they are those
    of `HuggingFaceGenerator`. The draws are the server's: its seed is a function of the sampling's
    seed and the request's key, so a request has the same seed in whatever batch. Log-probabilities
    are the model's own if the server returns those (vLLM: `--logprobs-mode raw_logprobs`, its
    default).

    Args:
        options: where the servers are.
        base: the model of the configuration, which they should be running.
        trained: an adapter, which they are made to load, or a whole model, which they must be
            running; None for the bare base.
        tokenizer: the model's.
        end_id: the token that ends an answer; the tokenizer's end of sequence ends it too.
        revision: of the base, where a server is started.
    """

    def __init__(
        self,
        options: ServerOptions,
        base: str,
        trained: Path | None,
        tokenizer: PreTrainedTokenizerBase,
        end_id: int,
        stop: Sequence[str] = ("\n",),
        revision: str | None = None,
    ) -> None:
        self.options = options
        self.stop = stop
        self.detokenizer = Detokenizer(tokenizer)
        self.vocabulary = len(tokenizer)
        self.end_id = end_id
        self.end_ids = frozenset(i for i in (end_id, tokenizer.eos_token_id) if i is not None)
        if trained is not None:
            check_trained(trained)
        self._started = None
        urls = options.urls or [options.url]
        if options.start is not None:
            model = str(trained) if trained is not None and is_whole(trained) else base
            pinned = ["--revision", revision, "--tokenizer-revision", revision] if revision else []
            self._started = StartedServer(model, [*pinned, *options.start])
            urls = [self._started.url]
        self._runner = asyncio.Runner()
        self.servers: list[_Server] = []
        try:
            for url in urls:
                server = _Server(options.model_copy(update={"url": url}), self._runner)
                self.servers.append(server)
                self._runner.run(server.find_model(base, trained))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take the adapter off the servers again, if that can be done, and leave; end a server
        that was started."""
        for server in self.servers:
            server.close()
        self._runner.close()
        if self._started is not None:
            self._started.close()

    @property
    def capacity(self) -> int:
        """Four times the requests under way at once, so that what ends is replaced."""
        return 4 * self.options.concurrency * len(self.servers)

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """See `Generator.generate`; if a server fails, `done` has received what was completed
        before, and what was under way and could be completed."""
        found: dict[tuple[int, int], Completion] = {}

        async def complete(place: tuple[int, int]) -> None:
            number, sample = place
            found[place] = await self._complete(requests[number], sample)
            if done is not None:
                done(number, sample, found[place])

        places = [(n, i) for n, request in enumerate(requests) for i in range(request.samples)]
        at_once = self.options.concurrency * len(self.servers)
        try:
            self._runner.run(each(places, complete, at_once))
        except RefusedError as error:
            for server in self.servers:
                if server.url == error.url and not server.has_answered:
                    body = self._body(requests[0], 0)
                    self._runner.run(server.check(body, error.words))
            raise
        return [[found[n, i] for i in range(r.samples)] for n, r in enumerate(requests)]

    async def _complete(self, request: Request, sample: int) -> Completion:
        if request.max_new_tokens < 1:
            return Completion((), "", (), (), "length")
        # One server for all that a prompt begins, which it then reads once.
        server = self.servers[sum(request.prompt) % len(self.servers)]
        body = {"model": server.model} | self._body(request, sample)
        try:
            found = await server.client.attempt(lambda: self._receive(server, request, body))
        except RefusedError as error:
            # Another process that used the same adapter may have taken it off.
            if error.status != 404 or server.adapter is None:
                raise
            await server.load(server.adapter)
            found = await server.client.attempt(lambda: self._receive(server, request, body))
        server.has_answered = True
        return found

    def _body(self, request: Request, sample: int) -> dict[str, Any]:
        """What is requested, with nothing left to the server's own defaults."""
        return {
            "prompt": [*request.prompt, *request.prefix],
            "max_tokens": request.max_new_tokens,
            "temperature": request.sampling.temperature,
            "top_k": request.sampling.top_k or -1,
            "top_p": 1.0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": server_seed(request, sample),
            "stop": list(self.stop),
            "stop_token_ids": sorted(self.end_ids),
            "logprobs": 1,
            "return_token_ids": True,
            "stream": request.segment_end is not None,
        }

    async def _receive(self, server: _Server, request: Request, body: dict[str, Any]) -> Completion:
        """One attempt at an answer, left as soon as its end is known."""
        cut = Cut(self.detokenizer, request.prefix, self.stop, request.segment_end, self.end_ids)
        ids: list[int] = []
        log_probs: list[float] = []
        text = ""
        async with aclosing(server.choices(body)) as choices:
            async for choice in choices:
                first = len(ids)
                ids += self._token_ids(server, choice)
                log_probs += choice.logprobs.token_logprobs if choice.logprobs else []
                text += choice.text
                if log_probs and len(log_probs) != len(ids):
                    raise BrokenAnswerError(
                        f"sent {len(log_probs)} log-probabilities for {len(ids)} tokens"
                    )
                for place in range(first, min(len(ids), request.max_new_tokens)):
                    ended = cut.add(ids[place])
                    if ended is not None:
                        return cut.completion(ids[: place + 1], log_probs[: place + 1], ended)
                if len(ids) > request.max_new_tokens:
                    raise BrokenAnswerError(f"sent {len(ids)} tokens or more, see max_new_tokens")
                if choice.finish_reason == "length":
                    return cut.completion(ids, log_probs, "length")
                if choice.finish_reason == "stop" and isinstance(choice.stop_reason, str):
                    return cut.completion(ids, log_probs, "stop")
                if choice.finish_reason == "stop":
                    # The last token is an end that only the server knows, or the end is left out.
                    piece = self.detokenizer.pieces(ids[-1])[1] if ids else ""
                    is_text = piece and text.endswith(piece) and ids[-1] != choice.stop_reason
                    if not ids or is_text:
                        return cut.completion([*ids, self.end_id], (), "end")
                    return cut.completion(ids, log_probs, "end")
        raise BrokenAnswerError("ended in the middle of the answer")

    def _token_ids(self, server: _Server, choice: _Choice) -> list[int]:
        if choice.token_ids is None and choice.text:
            raise InputError(
                f"{server.url}: returns no token ids (`token_ids`, which vLLM from 0.10.2 on "
                "adds to a completion for `return_token_ids`); expected a server that does"
            )
        ids = choice.token_ids or []
        wrong = [i for i in ids if not 0 <= i < self.vocabulary]
        if wrong:
            raise InputError(
                f"{server.url}: sent token {wrong[0]}, but the tokenizer of model.base has "
                f"{self.vocabulary}; expected it to serve that model"
            )
        return ids


def server_seed(request: Request, sample: int) -> int:
    """The seed of a sample's draws on a server, in [0, 2^63)."""
    name = f"{request.sampling.seed}|{request.key}/{request.first + sample}"
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _is_same(model: str, served: _Model) -> bool:
    """Whether a model (a directory, or a name on the hub) is what the server has under a name."""
    names = [name for name in (served.id, served.root) if name is not None]
    return any(name == model or Path(name).resolve() == Path(model).resolve() for name in names)
