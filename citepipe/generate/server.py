"""The generator behind an OpenAI-compatible server, such as vLLM."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import openai
from pydantic import BaseModel, Field, FiniteFloat

from citepipe.errors import InputError
from citepipe.generate.client import BrokenAnswerError, Client, RefusedError
from citepipe.generate.completion import Completion, Done, Request
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


class ServerGenerator:
    """Every sample is one request; the server batches them, and shares what they have in common.

    Text and offsets come from the server's token ids through our own tokenizer, so they are those
    of `HuggingFaceGenerator`. The draws are the server's: its seed is a function of the sampling's
    seed and the request's key, so a request has the same seed in whatever batch. Log-probabilities
    are the model's own if the server returns those (vLLM: `--logprobs-mode raw_logprobs`, its
    default).

    Args:
        options: where the server is.
        base: the model of the configuration, which the server should be running.
        trained: an adapter, which the server is made to load, or a whole model, which it must be
            running; None for the bare base.
        tokenizer: the model's.
        end_id: the token that ends an answer; the tokenizer's end of sequence ends it too.
    """

    def __init__(
        self,
        options: ServerOptions,
        base: str,
        trained: Path | None,
        tokenizer: PreTrainedTokenizerBase,
        end_id: int,
    ) -> None:
        self.options = options
        self.detokenizer = Detokenizer(tokenizer)
        self.vocabulary = len(tokenizer)
        self.end_id = end_id
        self.end_ids = frozenset(i for i in (end_id, tokenizer.eos_token_id) if i is not None)
        self._adapter: Path | None = None
        self._has_loaded = False
        if trained is not None:
            check_trained(trained)
        self._client = Client(options)
        try:
            self.model = self._client.run(self._find_model(base, trained))
        except BaseException:
            self._client.close()
            raise

    def close(self) -> None:
        """Take the adapter off the server again, if that can be done, and leave."""
        if self._has_loaded:
            with suppress(InputError):
                self._client.run(self._post_once("/unload_lora_adapter", lora_name=self.model))
        self._client.close()

    @property
    def capacity(self) -> int:
        """Four times the requests under way at once, so that what ends is replaced."""
        return 4 * self.options.concurrency

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """See `Generator.generate`; if the server fails, `done` has received what was completed
        before, and what was under way and could be completed."""
        found: dict[tuple[int, int], Completion] = {}

        async def complete(place: tuple[int, int]) -> None:
            number, sample = place
            found[place] = await self._complete(requests[number], sample)
            if done is not None:
                done(number, sample, found[place])

        places = [(n, i) for n, request in enumerate(requests) for i in range(request.samples)]
        self._client.run(self._client.each(places, complete))
        return [[found[n, i] for i in range(r.samples)] for n, r in enumerate(requests)]

    async def _complete(self, request: Request, sample: int) -> Completion:
        if request.max_new_tokens < 1:
            return Completion((), "", (), (), "length")
        body = self._body(request, sample)
        try:
            return await self._client.attempt(lambda: self._receive(request, body))
        except RefusedError as error:
            # Another process that used the same adapter may have taken it off.
            if error.status != 404 or self._adapter is None:
                raise
            await self._load_adapter(self._adapter)
        return await self._client.attempt(lambda: self._receive(request, body))

    def _body(self, request: Request, sample: int) -> dict[str, Any]:
        """What is requested, with nothing left to the server's own defaults."""
        return {
            "model": self.model,
            "prompt": [*request.prompt, *request.prefix],
            "max_tokens": request.max_new_tokens,
            "temperature": request.sampling.temperature,
            "top_k": request.sampling.top_k or -1,
            "top_p": 1.0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": server_seed(request, sample),
            "stop": list(request.stop),
            "stop_token_ids": sorted(self.end_ids),
            "logprobs": 1,
            "return_token_ids": True,
            "stream": request.segment_end is not None,
        }

    async def _receive(self, request: Request, body: dict[str, Any]) -> Completion:
        """One attempt at an answer, left as soon as its end is known."""
        cut = Cut(self.detokenizer, request.prefix, request.stop, request.segment_end, self.end_ids)
        ids: list[int] = []
        log_probs: list[float] = []
        text = ""
        async with aclosing(self._choices(body)) as choices:
            async for choice in choices:
                first = len(ids)
                ids += self._token_ids(choice)
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

    async def _choices(self, body: dict[str, Any]) -> AsyncGenerator[_Choice, None]:
        """The completion, whole or piece by piece; a server stops when its stream is left."""
        send, path = self._client.api.post, "/completions"
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

    def _token_ids(self, choice: _Choice) -> list[int]:
        if choice.token_ids is None and choice.text:
            raise InputError(
                f"{self.options.url}: returns no token ids (`token_ids`, which vLLM from 0.10.2 on "
                "adds to a completion for `return_token_ids`); expected a server that does"
            )
        ids = choice.token_ids or []
        wrong = [i for i in ids if not 0 <= i < self.vocabulary]
        if wrong:
            raise InputError(
                f"{self.options.url}: sent token {wrong[0]}, but the tokenizer of model.base has "
                f"{self.vocabulary}; expected it to serve that model"
            )
        return ids

    async def _find_model(self, base: str, trained: Path | None) -> str:
        """The server's name of the model that answers."""

        async def models() -> dict[str, _Model]:
            answer = await self._client.api.get("/models", cast_to=object)
            return {model.id: model for model in _Models.model_validate(answer).data}

        served = await self._client.attempt(models)
        url, name = self.options.url, self.options.model
        if name is not None and name not in served:
            names = ", ".join(served) or "nothing"
            raise InputError(f"{url}: expected it to serve server.model {name}, it serves {names}")
        bases = [key for key, model in served.items() if not model.parent]
        candidates = bases if name is None else [name]
        if not candidates:
            raise InputError(f"{url}: expected it to serve a model, it serves none")
        if trained is not None and is_whole(trained):
            same = [key for key in candidates if _is_same(str(trained), served[key])]
            if same:
                return same[0]
            raise InputError(
                f"{url}: expected it to serve {trained}, a whole model; start it with that "
                f"directory, it serves {', '.join(bases)}"
            )
        chosen = candidates[0]
        if not _is_same(base, served[chosen]):
            say(f"{url}: serves {chosen}; model.base is {base}, expected the same model")
        if trained is None:
            return chosen
        self._adapter = trained.resolve()
        return await self._load_adapter(self._adapter)

    async def _load_adapter(self, adapter: Path) -> str:
        name = f"citepipe-{digest_of_path(adapter)}"
        try:
            await self._post_once("/load_lora_adapter", lora_name=name, lora_path=str(adapter))
        except RefusedError as error:
            if "already been loaded" in error.words:
                return name
            if error.status == 405 or (error.status, error.words) == (404, "Not Found"):
                problem = f"loads no adapters by request; start it with: {START}"
            else:
                problem = f"the adapter {adapter} was not loaded: {error.words}"
            raise InputError(f"{self.options.url}: {problem}") from None
        self._has_loaded = True
        return name

    async def _post_once(self, path: str, **body: str) -> None:
        """Send a request without retries: 500 is also what vLLM answers to a bad adapter."""
        api = self._client.api.with_options(max_retries=0)
        await self._client.attempt(lambda: api.post(path, body=body, cast_to=object))


def server_seed(request: Request, sample: int) -> int:
    """The seed of a sample's draws on a server, in [0, 2^63)."""
    name = f"{request.sampling.seed}|{request.key}/{request.first + sample}"
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _is_same(model: str, served: _Model) -> bool:
    """Whether a model (a directory, or a name on the hub) is what the server has under a name."""
    names = [name for name in (served.id, served.root) if name is not None]
    return any(name == model or Path(name).resolve() == Path(model).resolve() for name in names)
