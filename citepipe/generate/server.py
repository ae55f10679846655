"""The generator that asks an OpenAI-compatible server, such as vLLM."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from citepipe.errors import InputError
from citepipe.generate.client import (
    PASSING,
    AttemptError,
    Client,
    Pauses,
    RefusedError,
    one_line,
    parse_json,
)
from citepipe.generate.completion import Completion, Done, FinishReason, Request
from citepipe.generate.cut import Cut
from citepipe.generate.detokenize import Detokenizer
from citepipe.models.load import check_trained, is_whole
from citepipe.options import ServerOptions
from citepipe.progress import say

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

START = (
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve {base} --enable-lora --max-lora-rank 64 "
    "--generation-config vllm"
)
"""The command that starts a server which loads adapters by request."""

_ID_MARK = "token_id:"
# Tokens in front of a text that is tokenised anew: some tokenizers treat a text's begin otherwise.
_TOKENS_BEFORE = 8


class ServerGenerator:
    """Every sample is one request; the server batches them, and shares what they have in common.

    Text and offsets come from the server's token ids through our own tokenizer, so they are those
    of `HuggingFaceGenerator`. The draws are the server's: its seed is a function of the sampling's
    seed and the request's key, so a request gets the same seed whatever it is asked with, but the
    tokens are not those of another engine. Log-probabilities are the model's own if the server
    tells those (vLLM: `--logprobs-mode raw_logprobs`, its default).

    Of a server that tells no token ids the text is tokenised, and there are no log-probabilities.

    Args:
        options: where the server is.
        base: the model of the configuration, which the server should be running.
        trained: an adapter, which the server is made to load, or a whole model, which it must be
            running; None for the bare base.
        tokenizer: the model's.
        end_id: the token that ends an answer; the tokenizer's end of sequence ends it too.
        pauses: between two attempts.

    Raises:
        InputError: there is no such server, or it has not got the model.
    """

    def __init__(
        self,
        options: ServerOptions,
        base: str,
        trained: Path | None,
        tokenizer: PreTrainedTokenizerBase,
        end_id: int,
        pauses: Pauses | None = None,
    ) -> None:
        self.options = options
        self.detokenizer = Detokenizer(tokenizer)
        self.end_id = end_id
        self.end_ids = frozenset(i for i in (end_id, tokenizer.eos_token_id) if i is not None)
        self._tells_ids: bool | None = None
        self._adapter: Path | None = None
        self._loaded = False
        if trained is not None:
            check_trained(trained)
        self._client = Client(options, pauses)
        try:
            self.model = self._client.run(self._find_model(base, trained))
        except BaseException:
            self._client.close()
            raise

    def __enter__(self) -> ServerGenerator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the adapter off the server again, if that can be done, and leave."""
        if self._loaded:
            self._loaded = False
            with suppress(InputError):
                body = {"lora_name": self.model}
                self._client.run(
                    self._client.ask("POST", "unload_lora_adapter", bytes, body, retries=0)
                )
        self._client.close()

    @property
    def capacity(self) -> int:
        """Four times the requests under way at once, so that what ends is replaced."""
        return 4 * self.options.concurrency

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """See `Generator.generate`; what to keep is the server's business.

        Raises:
            InputError: the server is gone, or says no. What it has completed before, and what it
                completes of the requests under way, `done` has been told of.
        """
        found: list[list[Completion | None]] = [[None] * r.samples for r in requests]

        async def complete(place: tuple[int, int]) -> Completion:
            return await self._complete(requests[place[0]], place[1])

        def finished(place: tuple[int, int], completion: Completion) -> None:
            number, sample = place
            found[number][sample] = completion
            if done is not None:
                done(number, sample, completion)

        places = [(n, i) for n, request in enumerate(requests) for i in range(request.samples)]
        self._client.each(places, complete, finished)
        return [[completion for completion in own if completion is not None] for own in found]

    async def _complete(self, request: Request, sample: int) -> Completion:
        if request.max_new_tokens < 1:
            return self._cut(request).completion((), (), "length")
        body = self._body(request, sample)
        for _ in range(self.options.retries):
            try:
                return await self._ask(request, body)
            except RefusedError as error:
                # Another process that used the same adapter may have taken it off.
                if error.status != 404 or self._adapter is None:
                    raise
                await self._load_adapter(self._adapter)
        return await self._ask(request, body)

    async def _ask(self, request: Request, body: dict[str, Any]) -> Completion:
        if request.segment_end is not None:
            return await self._client.stream(
                "completions", {**body, "stream": True}, lambda: _Answer(self, request)
            )

        def parse(data: bytes) -> Completion:
            answer = _Answer(self, request)
            completion = answer.add(parse_json(data), whole=True)
            assert completion is not None
            return completion

        return await self._client.ask("POST", "completions", parse, body)

    def _body(self, request: Request, sample: int) -> dict[str, Any]:
        """What is asked for, with nothing left to the server's own defaults."""
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
            # What servers know that do not know the line above.
            "return_tokens_as_token_ids": True,
        }

    def _cut(self, request: Request) -> Cut:
        return Cut(
            self.detokenizer, request.prefix, request.stop, request.segment_end, self.end_ids
        )

    async def _find_model(self, base: str, trained: Path | None) -> str:
        """The name of the model to ask for, which the server has then."""
        served = await self._client.ask("GET", "models", _served)
        url, name = self.options.url, self.options.model
        if name is not None and name not in served:
            names = ", ".join(served) or "nothing"
            raise InputError(f"{url}: expected it to serve server.model {name}, it serves {names}")
        bases = [key for key, card in served.items() if not card.get("parent")]
        if name is None and not bases:
            raise InputError(f"{url}: expected it to serve a model, it serves none")
        if trained is not None and is_whole(trained):
            for key in bases if name is None else [name]:
                if _is_same(str(trained), key, served[key]):
                    return key
            raise InputError(
                f"{url}: expected it to serve {trained}, a whole model; start it with that "
                f"directory, it serves {', '.join(bases)}"
            )
        chosen = bases[0] if name is None else name
        if not served[chosen].get("parent") and not _is_same(base, chosen, served[chosen]):
            say(f"{url}: serves {chosen}; model.base is {base}, expected the same model")
        if trained is None:
            return chosen
        self._adapter = trained.resolve()
        return await self._load_adapter(self._adapter)

    async def _load_adapter(self, adapter: Path) -> str:
        name = f"citepipe-{adapter_digest(adapter)}"
        body = {"lora_name": name, "lora_path": str(adapter)}
        try:
            # A server error is what vLLM answers if an adapter is not one for its model.
            await self._client.ask(
                "POST", "load_lora_adapter", bytes, body, passing=PASSING - {500}
            )
        except RefusedError as error:
            if "already been loaded" in error.message or "already loaded" in error.message:
                return name
            if error.status == 405 or (
                error.status == 404 and error.message.lower() in ("", "not found")
            ):
                command = START.format(base="MODEL")
                raise InputError(
                    f"{self.options.url}: loads no adapters by request; start it with: {command}"
                ) from None
            raise InputError(
                f"{self.options.url}: the adapter {adapter} was not loaded: {error.message}"
            ) from None
        self._loaded = True
        return name

    def _tells(self, ids: bool) -> None:
        """Note whether the server tells token ids, which may not change."""
        if self._tells_ids is None:
            self._tells_ids = ids
            if not ids:
                say(
                    f"{self.options.url}: tells no token ids; answers are tokenised anew and have "
                    "no log-probabilities"
                )
        elif self._tells_ids and not ids:
            raise AttemptError("left out the token ids")


class _Answer:
    """One answer as it comes: in one piece, or piece by piece."""

    def __init__(self, generator: ServerGenerator, request: Request) -> None:
        self.ended = False
        self._generator = generator
        self._request = request
        self._cut = generator._cut(request)
        self._token_ids: list[int] = []
        self._log_probs: list[float] = []
        self._text = ""

    def add(self, event: Any, whole: bool = False) -> Completion | None:
        """See `client.Reader`.

        Args:
            event: a completion object of the API, or a part of one.
            whole: there is nothing more to come.
        """
        choice = _choice(event, whole)
        if choice is None:
            return None
        text, finish = choice.get("text"), choice.get("finish_reason")
        if not isinstance(text, str):
            raise AttemptError("sent a completion without a text")
        if finish not in ("stop", "length") and (whole or finish is not None):
            raise AttemptError(f"finish_reason: expected stop or length, sent {_shown(finish)}")
        self.ended = finish is not None
        token_ids, log_probs = _tokens(choice)
        if token_ids is None and self._token_ids and not text:
            token_ids = []
        if token_ids is None:
            if text or whole:
                self._generator._tells(False)
            self._text += text
            return self._from_text(finish, choice.get("stop_reason"))
        if self._text and not self._token_ids:
            raise AttemptError("left out some of the token ids")
        self._generator._tells(True)
        self._text += text
        return self._from_ids(token_ids, log_probs, finish, choice.get("stop_reason"))

    def _from_ids(
        self, token_ids: list[int], log_probs: list[float], finish: str | None, reason: Any
    ) -> Completion | None:
        most = self._request.max_new_tokens
        self._log_probs += log_probs
        for place, token_id in enumerate(token_ids, len(self._token_ids)):
            self._token_ids.append(token_id)
            ended = self._cut.add(token_id)
            if ended is not None:
                return self._completion(ended, self._log_probs[: place + 1])
            if len(self._token_ids) > most:
                raise AttemptError(f"sent more than the {most} tokens that were asked for")
        if finish == "length":
            return self._completion("length", self._log_probs)
        if finish is None:
            return None
        if isinstance(reason, str):
            return self._completion("stop", self._log_probs)
        # Either the last token is an end that the server alone knows, or it left the end out.
        last = self._token_ids[-1] if self._token_ids else None
        piece = "" if last is None else self._generator.detokenizer.pieces(last)[1]
        if last is None or (last != reason and piece and self._text.endswith(piece)):
            self._token_ids.append(self._generator.end_id)
            return self._completion("end", [])
        return self._completion("end", self._log_probs)

    def _from_text(self, finish: str | None, reason: Any) -> Completion | None:
        request, text = self._request, self._text
        ended: FinishReason
        if any(string in text for string in request.stop):
            ended = "stop"
        elif request.segment_end is not None and request.segment_end(text) is not None:
            ended = "segment"
        elif finish is None:
            return None
        elif finish == "length":
            ended = "length"
        else:
            ended = "stop" if isinstance(reason, str) else "end"
        self._token_ids = self._tokenised(text)
        if ended == "end":
            self._token_ids.append(self._generator.end_id)
        return self._completion(ended, [])

    def _tokenised(self, text: str) -> list[int]:
        """Token ids of a text that stands behind the prompt and its prefix."""
        detokenizer = self._generator.detokenizer
        before = detokenizer.decode(
            [*self._request.prompt, *self._request.prefix][-_TOKENS_BEFORE:]
        )

        def encode(words: str) -> list[int]:
            return list(detokenizer.tokenizer(words, add_special_tokens=False)["input_ids"])

        head, both = encode(before), encode(before + text)
        return both[len(head) :] if both[: len(head)] == head else encode(text)

    def _completion(self, finish: FinishReason, log_probs: Sequence[float]) -> Completion:
        _check_count(log_probs, self._token_ids)
        return self._cut.completion(self._token_ids, log_probs, finish)


def server_seed(request: Request, sample: int) -> int:
    """The seed of a sample's draws on a server, in [0, 2^63)."""
    name = f"{request.sampling.seed}|{request.key}/{request.first + sample}"
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def adapter_digest(adapter: Path) -> str:
    """Names what an adapter's files hold.

    Raises:
        InputError: they cannot be read.
    """
    digest = hashlib.blake2b(digest_size=8)
    try:
        for path in sorted(adapter.glob("adapter_*")):
            with path.open("rb") as stream:
                own = hashlib.file_digest(stream, hashlib.blake2b).digest()
            digest.update(path.name.encode() + b"\0" + own)
    except OSError as error:
        raise InputError(f"{adapter}: expected an adapter: {error}") from None
    return digest.hexdigest()


def _served(data: bytes) -> dict[str, dict[str, Any]]:
    """What a server serves, by name."""
    value = parse_json(data)
    cards = value.get("data") if isinstance(value, dict) else None
    if not isinstance(cards, list) or not all(
        isinstance(card, dict) and isinstance(card.get("id"), str) for card in cards
    ):
        raise AttemptError(f"expected a list of models, sent {_shown(value)}")
    return {card["id"]: card for card in cards}


def _is_same(model: str, name: str, card: dict[str, Any]) -> bool:
    """Whether a model (a directory, or a name on the hub) is what the server has under a name."""
    return any(
        isinstance(other, str)
        and (other == model or Path(other).resolve() == Path(model).resolve())
        for other in (name, card.get("root"))
    )


def _choice(event: Any, whole: bool) -> dict[str, Any] | None:
    choices = event.get("choices") if isinstance(event, dict) else None
    if not isinstance(choices, list) or not all(isinstance(c, dict) for c in choices):
        raise AttemptError(f"expected a completion, sent {_shown(event)}")
    if not choices and not whole:
        return None
    if len(choices) != 1:
        raise AttemptError(f"sent {len(choices)} completions, expected 1")
    return choices[0]


def _tokens(choice: dict[str, Any]) -> tuple[list[int] | None, list[float]]:
    """Token ids of a choice, None if it has none, and log-probabilities, none if it has none."""
    known = choice.get("logprobs")
    known = known if isinstance(known, dict) else {}
    token_ids, log_probs = choice.get("token_ids"), known.get("token_logprobs")
    words = known.get("tokens")
    if token_ids is None and isinstance(words, list):
        marked = [w[len(_ID_MARK) :] for w in words if isinstance(w, str) and _ID_MARK in w[:9]]
        if len(marked) == len(words) and all(w.isdecimal() for w in marked):
            token_ids = [int(w) for w in marked]
    if token_ids is None:
        return None, []
    if not isinstance(token_ids, list) or not all(
        type(i) is int and 0 <= i < 2**31 for i in token_ids
    ):
        raise AttemptError(f"expected token ids, sent {_shown(token_ids)}")
    if log_probs is None:
        return token_ids, []
    if not isinstance(log_probs, list) or not all(
        type(p) in (int, float) and math.isfinite(p) for p in log_probs
    ):
        raise AttemptError(f"expected log-probabilities, sent {_shown(log_probs)}")
    _check_count(log_probs, token_ids)
    return token_ids, [float(p) for p in log_probs]


def _check_count(log_probs: Sequence[float], token_ids: Sequence[int]) -> None:
    if log_probs and len(log_probs) != len(token_ids):
        raise AttemptError(f"sent {len(log_probs)} log-probabilities for {len(token_ids)} tokens")


def _shown(value: Any) -> str:
    return f"'{one_line(str(value), 60)}'"
