"""The generator that runs a Hugging Face causal language model in this process."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, StoppingCriteria

from citepipe.errors import InputError
from citepipe.generate.choose import choose, uniforms
from citepipe.generate.completion import Completion, Done, Request, Sampling
from citepipe.generate.decode import Branch, TreeDecoder, reads_trees
from citepipe.generate.text import Cut, Detokenizer
from citepipe.models.load import language_model_of
from citepipe.models.pretrained import is_out_of_memory
from citepipe.progress import say

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST_AT_ONCE = {"cpu": 512, "cuda": 1024}
"""Sequences decoded at once where neither a batch size nor memory limits them: with more, a step
takes longer by as much."""

SHARE_FOR_CACHE = 0.6
"""Of the free memory, what keys and values may take. Moving them needs room for a second one of
each layer, and passes for what they compute."""

COLUMNS_OF_SEQUENCE = 256
"""What a sequence takes of them, with its share of a prompt, in `capacity`."""

KEPT_AT_MOST = 0.5
"""Of the memory for keys and values, what those of ended sequences may take until the next call."""

REFILL = 0.25
"""New sequences are started when they make up this share of all, or are the last."""


@dataclass(eq=False)
class Sequence(Branch):
    """One sample of a request; its answer begins with the request's prefix.

    Attributes:
        request: what is to be completed.
        number: of the request among all.
        sample: its number among the request's samples.
        cut: finds where it ends.
        draws: (max_new_tokens,) the random numbers that choose its tokens; None if greedy.
        log_probs: of the generated tokens.
        completion: set when it has ended.
    """

    request: Request
    number: int
    sample: int
    cut: Cut
    draws: np.ndarray | None
    log_probs: list[float] = field(default_factory=list)
    completion: Completion | None = None

    def add(self, token_id: int, log_prob: float) -> None:
        """Add a token, which may complete it."""
        self.answer.append(token_id)
        self.log_probs.append(log_prob)
        finish = self.cut.add(token_id)
        if finish is None and len(self.log_probs) >= self.request.max_new_tokens:
            finish = "length"
        if finish is not None:
            written = self.answer[len(self.request.prefix) :]
            self.completion = self.cut.completion(written, self.log_probs, finish)


class HuggingFaceGenerator:
    """Continuous batching with a key-value cache that holds each prompt once (see `decode`).

    Sequences that end make room for others. Every random draw comes from the request's own key,
    one uniform number per token, so the same request gets the same draws whatever it is batched
    with. What else is in the batch still changes how logits are rounded. In 32 bits a token for
    which that might matter, about one in a thousand, is chosen once more from its sequence alone:
    the same request gets the same answer in any batch. In 16 bits it need not.

    Models that cannot decode over trees run batch by batch in `model.generate`.

    Args:
        model: a causal language model, or a PEFT model around one.
        tokenizer: its tokenizer.
        batch_size: sequences decoded at once, at most; None for what memory allows. Fewer from
            then on when memory runs out.
        end_id: the token that ends an answer (`encode.end_token`); None for the tokenizer's end of
            sequence. Those of the model's generation configuration end it too.
        stop: strings before which the text of an answer ends (`encode.stops`).
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int | None = None,
        end_id: int | None = None,
        stop: Many[str] = ("\n",),
    ) -> None:
        self.model = model
        self.stop = stop
        self.detokenizer = Detokenizer(tokenizer)
        self.pad_id = int(tokenizer.pad_token_id)
        self.end_ids = _end_ids(model, tokenizer, end_id)
        self._language_model = language_model_of(model)
        device = self._language_model.device.type
        self._most = batch_size or MOST_AT_ONCE.get(device, MOST_AT_ONCE["cpu"])
        self._columns = None if batch_size else _columns_in_memory(self._language_model)
        self._is_exact = False
        self._reads_trees: bool | None = None
        self._decoder: TreeDecoder | None = None

    @property
    def capacity(self) -> int:
        """Twice what is decoded at once, or as many as memory holds between two calls."""
        if self._columns is None:
            return 2 * self._most
        return max(1, min(2 * self._most, self._columns // COLUMNS_OF_SEQUENCE))

    def close(self) -> None:
        """Drop keys and values that are kept."""
        self._decoder = None

    def generate(
        self, requests: Many[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """See `Generator.generate`.

        Raises:
            InputError: there is no memory for even one sequence.
        """
        model = self._language_model
        reduced = torch.is_autocast_enabled(model.device.type) or model.dtype.itemsize < 4
        self._is_exact = not reduced
        sequences = self._sequences(requests)
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                for sequence in self._complete(sequences, keep):
                    if done is not None:
                        assert sequence.completion is not None
                        done(sequence.number, sequence.sample, sequence.completion)
        except BaseException:
            keep = False
            raise
        finally:
            if not keep:
                self.close()
            self.model.train(was_training)
        sequences.sort(key=lambda sequence: (sequence.number, sequence.sample))
        completions = (sequence.completion for sequence in sequences)
        return [[c for c in itertools.islice(completions, r.samples) if c] for r in requests]

    def _sequences(self, requests: Many[Request]) -> list[Sequence]:
        """All samples of all requests, those of like prompts together, the longest first."""
        sequences = []
        for number, request in enumerate(requests):
            for sample in range(request.samples):
                draws = None
                if request.sampling.temperature > 0:
                    key = f"{request.key}/{request.first + sample}"
                    draws = uniforms(request.sampling.seed, key, request.max_new_tokens)
                ends = self.stop, request.segment_end, self.end_ids
                cut = Cut(self.detokenizer, request.prefix, *ends)
                answer = list(request.prefix)
                sequence = Sequence(request.prompt, answer, request, number, sample, cut, draws)
                if request.max_new_tokens < 1:
                    sequence.completion = Completion((), "", (), (), "length")
                sequences.append(sequence)
        return sorted(sequences, key=lambda s: (-len(s.prompt), s.prompt, s.number, s.sample))

    def _complete(self, sequences: Many[Sequence], keep: bool) -> Iterator[Sequence]:
        """Complete all sequences; each is returned as soon as it has ended."""
        yield from (sequence for sequence in sequences if sequence.completion is not None)
        waiting = deque(sequence for sequence in sequences if sequence.completion is None)
        if self._reads_trees is None:
            self._reads_trees = reads_trees(self._language_model)
        while waiting:
            going: list[Sequence] = []
            memory_ran_out = False
            try:
                if self._reads_trees:
                    yield from self._decode_over_trees(going, waiting, keep)
                else:
                    yield from self._decode_in_batches(going, waiting)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                memory_ran_out = True
            if memory_ran_out:
                # Outside of the handler, whose traceback holds the tensors.
                self._shrink(going, waiting)

    def _decode_over_trees(
        self, going: list[Sequence], waiting: deque[Sequence], keep: bool
    ) -> Iterator[Sequence]:
        """Complete what waits; `going` is what is under way when memory runs out."""
        decoder = self._decoder = self._decoder or TreeDecoder(self._language_model)
        decoder.open(waiting)
        while going or waiting:
            new = self._next(decoder, going, waiting)
            going += new
            if new:
                decoder.start(new)
            logits = decoder.step(going)
            # What was begun before, and is not kept, is run token by token up to its end.
            ready = [place for place, sequence in enumerate(going) if sequence.is_read]
            if len(ready) < len(going):
                logits = logits[ready]
            self._add_tokens([going[place] for place in ready], logits)
            for sequence in going:
                if sequence.completion is not None:
                    kept = (*sequence.request.prefix, *sequence.completion.token_ids)
                    room = not self._columns or decoder.held < KEPT_AT_MOST * self._columns
                    decoder.end(sequence, kept if keep and room else None)
                    yield sequence
            going[:] = [sequence for sequence in going if sequence.completion is None]

    def _decode_in_batches(
        self, going: list[Sequence], waiting: deque[Sequence]
    ) -> Iterator[Sequence]:
        """The same by `model.generate`, padded in front, with the tokens that are chosen here."""
        model = self._language_model
        # A recurrent model would take padding into its state: its batches are equally long.
        layers = DynamicCache(config=model.config).layers
        is_recurrent = any(hasattr(layer, "conv_states") for layer in layers)
        while waiting:
            while waiting and len(going) < self._most:
                if is_recurrent and going and waiting[0].length != going[0].length:
                    break
                going.append(waiting.popleft())
            longest = max(sequence.length for sequence in going)
            pads = [longest - sequence.length for sequence in going]
            ids = [
                [self.pad_id] * pad + [*sequence.prompt, *sequence.answer]
                for pad, sequence in zip(pads, going, strict=True)
            ]
            mask = [[0] * pad + [1] * (longest - pad) for pad in pads]
            # The model's own settings (penalties, minimal lengths) would change the choice.
            own, model.generation_config = model.generation_config, GenerationConfig()
            try:
                model.generate(  # type: ignore[operator]
                    torch.tensor(ids, device=model.device),
                    attention_mask=torch.tensor(mask, device=model.device),
                    max_new_tokens=max(s.request.max_new_tokens for s in going),
                    pad_token_id=self.pad_id,
                    logits_processor=[_Chosen(self, going)],
                    stopping_criteria=[_Ended(going)],
                )
            finally:
                model.generation_config = own
            yield from going
            going.clear()

    def _add_tokens(self, sequences: Many[Sequence], logits: torch.Tensor) -> None:
        """Choose the next token of each sequence by (sequences, vocabulary) logits."""
        kinds: dict[Sampling, list[int]] = {}
        for place, sequence in enumerate(sequences):
            kinds.setdefault(sequence.request.sampling, []).append(place)
        added: list[tuple[Sequence, int, float]] = []
        for sampling, places in kinds.items():
            group = [sequences[place] for place in places]
            rows = logits if len(kinds) == 1 else logits[places]
            numbers = [s.draws[len(s.log_probs)] for s in group if s.draws is not None]
            draws = torch.tensor(np.array(numbers), device=rows.device) if numbers else None
            chosen, scores, unsure = choose(rows, sampling, draws)
            if self._is_exact:
                for row in unsure.nonzero()[:, 0].tolist():
                    alone = self._logits_alone(group[row])
                    draw = None if draws is None else draws[row : row + 1]
                    chosen[row], scores[row] = (own[0] for own in choose(alone, sampling, draw)[:2])
            added += zip(group, chosen.tolist(), scores.tolist(), strict=True)
        for sequence, token_id, score in added:
            sequence.add(token_id, score)

    def _logits_alone(self, sequence: Sequence) -> torch.Tensor:
        """(1, vocabulary) logits of the next token, computed without any batch."""
        cache = self._decoder.prompt_alone(sequence.prompt) if self._decoder else None
        begin = sequence.prompt if cache is None else sequence.prompt[-1:]
        ids = torch.tensor([[*begin, *sequence.answer]])
        output = self._language_model(
            input_ids=ids.to(self._language_model.device),
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _next(
        self, decoder: TreeDecoder, going: Many[Sequence], waiting: deque[Sequence]
    ) -> list[Sequence]:
        """The sequences that are started beside those that go on."""
        room = min(len(waiting), self._most - len(going))
        if room and self._columns is not None:
            used, prompts = decoder.held, set()
            for count, sequence in enumerate([*going, *itertools.islice(waiting, room)]):
                # Columns for the longest answer, and once for the prompt.
                used += len(sequence.request.prefix) + sequence.request.max_new_tokens
                used += 0 if sequence.prompt in prompts else len(sequence.prompt)
                prompts.add(sequence.prompt)
                if used > self._columns:
                    room = max(0, count - len(going))
                    break
        if not going:
            room = max(1, room)
        # To start a few costs a move of all that go on: not for every one that ends.
        elif room < min(len(waiting), REFILL * (len(going) + room)):
            return []
        return [waiting.popleft() for _ in range(room)]

    def _shrink(self, going: Many[Sequence], waiting: deque[Sequence]) -> None:
        """After memory ran out, put back what was going on, to go on with fewer at once."""
        self.close()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(going) < 2:
            raise InputError(f"no memory to generate after {going[0].length} tokens")
        self._most = len(going) // 2
        if self._columns is not None:
            self._columns = max(1, self._columns // 2)
        say(f"memory ran out, goes on with {self._most} sequences at once")
        for sequence in going:
            sequence.columns = []
        waiting.extendleft(reversed(going))


class _Chosen(LogitsProcessor):
    """Leaves of each row's tokens only the one that a generator chooses."""

    def __init__(self, generator: HuggingFaceGenerator, rows: Many[Sequence]) -> None:
        self._generator, self._rows = generator, rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        going = [row for row, sequence in enumerate(self._rows) if sequence.completion is None]
        self._generator._add_tokens([self._rows[row] for row in going], scores[going])
        chosen = torch.tensor([[s.answer[-1]] for s in self._rows], device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


class _Ended(StoppingCriteria):
    """Ends each row where its sequence has ended."""

    def __init__(self, rows: Many[Sequence]) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        ended = [sequence.completion is not None for sequence in self._rows]
        return torch.tensor(ended, device=input_ids.device)


def _columns_in_memory(model: PreTrainedModel) -> int | None:
    """How many tokens' keys and values have room; None if the configuration does not tell."""
    config = model.config.get_text_config()
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size")
    layers, heads, width = (getattr(config, name, None) for name in names)
    if not (layers and heads and width):
        return None
    heads_of_keys = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or width // heads
    bytes_each = 2 * layers * heads_of_keys * size * model.dtype.itemsize
    return max(1, int(SHARE_FOR_CACHE * free_memory(model.device)) // bytes_each)


def free_memory(device: torch.device) -> int:
    """Bytes that this process could still take on a device, with what it holds there unused."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return int(psutil.virtual_memory().available)


def _end_ids(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, end_id: int | None
) -> frozenset[int]:
    """Every token that ends an answer."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [end_id, tokenizer.eos_token_id, *ids] if isinstance(i, int))
