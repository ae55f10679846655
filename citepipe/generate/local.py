"""The generator that runs a Hugging Face causal language model in this process."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterator
from collections.abc import Sequence as Many
from typing import TYPE_CHECKING

from citepipe.errors import InputError
from citepipe.generate.choose import choose, uniforms
from citepipe.generate.completion import Completion, Done, Request, Sampling
from citepipe.generate.cut import Cut
from citepipe.generate.detokenize import Detokenizer
from citepipe.generate.sequence import Sequence
from citepipe.models.load import language_model_of
from citepipe.models.memory import free_memory, is_out_of_memory
from citepipe.progress import say

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from citepipe.generate.plain_decoder import PlainDecoder
    from citepipe.generate.tree_decoder import TreeDecoder

MOST_AT_ONCE = {"cpu": 512, "cuda": 1024}
"""Sequences decoded at once where nobody says how many and memory is no limit: with more, a step
takes longer by as much."""

SHARE_FOR_CACHE = 0.6
"""Of the free memory, what keys and values may take. Moving them needs room for a second one of
each layer, and passes for what they compute."""

COLUMNS_OF_SEQUENCE = 256
"""What a sequence takes of them, with its share of a prompt, in the capacity that is told."""

KEPT_AT_MOST = 0.5
"""Of the memory for keys and values, what those of ended sequences may take until the next call."""

REFILL = 0.25
"""New sequences are started when they make up this share of all, or are the last."""


class HuggingFaceGenerator:
    """Continuous batching with a key-value cache that stands once per prompt.

    Sequences that end make room for others. Every random draw comes from the request's own key,
    one uniform number per token, so the same request gets the same draws whatever it is batched
    with. What else is in the batch still changes how logits are rounded. In 32 bits a token for
    which that might matter, about one in a thousand, is chosen once more from its sequence alone:
    the same request gets the same answer in any batch. In 16 bits it need not.

    Args:
        model: a causal language model, or a PEFT model around one.
        tokenizer: its tokenizer.
        batch_size: sequences decoded at once, at most; None for what memory allows. Fewer from
            then on when memory runs out.
        end_id: the token that ends an answer (`encode.end_token`); None for the tokenizer's end of
            sequence. Those of the model's generation configuration end it too.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int | None = None,
        end_id: int | None = None,
    ) -> None:
        self.model = model
        self.detokenizer = Detokenizer(tokenizer)
        self.pad_id = int(tokenizer.pad_token_id)
        self.end_ids = _end_ids(model, tokenizer, end_id)
        self._language_model = language_model_of(model)
        device = self._language_model.device.type
        self._most = batch_size or MOST_AT_ONCE.get(device, MOST_AT_ONCE["cpu"])
        self._memory = _columns_in_memory(self._language_model)
        self._columns = None if batch_size else self._memory
        self._is_exact = False
        self._decoder: TreeDecoder | PlainDecoder | None = None

    @property
    def capacity(self) -> int:
        """Twice what is decoded at once, so that what ends is replaced; fewer where memory would
        not hold what is kept of them between two calls."""
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
        import torch

        found: list[list[Completion | None]] = [[None] * r.samples for r in requests]
        waiting = deque(self._sequences(requests))
        was_training = self.model.training
        self.model.eval()
        try:
            model = self._language_model
            reduced = torch.is_autocast_enabled(model.device.type) or model.dtype.itemsize < 4
            self._is_exact = not reduced
            with torch.inference_mode():
                decoder = self._open(waiting)
                for sequence, completion in self._run(decoder, waiting, keep):
                    found[sequence.number][sequence.sample] = completion
                    if done is not None:
                        done(sequence.number, sequence.sample, completion)
                decoder.close(keep)
        except BaseException:
            self._decoder = None
            raise
        finally:
            self.model.train(was_training)
        return [[completion for completion in own if completion is not None] for own in found]

    def _sequences(self, requests: Many[Request]) -> Iterator[Sequence]:
        """All samples of all requests, those of like prompts together, the longest first."""
        order = sorted(
            range(len(requests)),
            key=lambda i: (-len(requests[i].prompt), requests[i].prompt, i),
        )
        for number in order:
            request = requests[number]
            for sample in range(request.samples):
                draws = None
                if request.sampling.temperature > 0:
                    key = f"{request.key}/{request.first + sample}"
                    draws = uniforms(request.sampling.seed, key, request.max_new_tokens)
                cut = Cut(
                    self.detokenizer,
                    request.prefix,
                    request.stop,
                    request.segment_end,
                    self.end_ids,
                )
                yield Sequence(request, number, sample, cut, draws, list(request.prefix))

    def _open(self, waiting: Many[Sequence]) -> TreeDecoder | PlainDecoder:
        """The decoder that suits the model, told what is to come."""
        from citepipe.generate.plain_decoder import PlainDecoder
        from citepipe.generate.tree import reads_trees
        from citepipe.generate.tree_decoder import TreeDecoder

        if self._decoder is None:
            if reads_trees(self._language_model):
                self._decoder = TreeDecoder(self._language_model)
            else:
                self._decoder = PlainDecoder(self._language_model, self.pad_id)
        wanted: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
        for sequence in waiting:
            wanted.setdefault(sequence.request.prompt, set()).add(tuple(sequence.answer))
        self._decoder.open(wanted, Counter(s.request.prompt for s in waiting))
        return self._decoder

    def _run(
        self, decoder: TreeDecoder | PlainDecoder, waiting: deque[Sequence], keep: bool
    ) -> Iterator[tuple[Sequence, Completion]]:
        """Every sequence with its completion, in the order in which they end."""
        import torch

        going: list[Sequence] = []
        for sequence in [s for s in waiting if s.request.max_new_tokens < 1]:
            waiting.remove(sequence)
            yield sequence, sequence.cut.completion([], [], "length")
        while going or waiting:
            new = self._next(decoder, going, waiting)
            try:
                logits = [decoder.step(going)] if going else []
                logits += [decoder.start(new)] if new else []
                chosen, scores = self._choose([*going, *new], torch.cat(logits))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                chosen = None
            going += new
            if chosen is None:
                # Outside of the handler, whose traceback holds the tensors.
                self._shrink(decoder, going, waiting)
                going = []
                continue
            still = []
            for sequence, token_id, score in zip(going, chosen, scores, strict=True):
                finish = sequence.add(token_id, score)
                if finish is None:
                    still.append(sequence)
                    continue
                completion = sequence.cut.completion(sequence.token_ids, sequence.log_probs, finish)
                room = self._memory is None or decoder.held < KEPT_AT_MOST * self._memory
                kept = (*sequence.request.prefix, *completion.token_ids) if keep and room else None
                decoder.end(sequence, kept)
                yield sequence, completion
            going = still

    def _choose(
        self, sequences: Many[Sequence], logits: torch.Tensor
    ) -> tuple[list[int], list[float]]:
        """The next token of each sequence, and its log-probability."""
        kinds: dict[Sampling, list[int]] = {}
        for place, sequence in enumerate(sequences):
            kinds.setdefault(sequence.request.sampling, []).append(place)
        tokens, scores = [0] * len(sequences), [0.0] * len(sequences)
        for sampling, places in kinds.items():
            group = [sequences[place] for place in places]
            rows = logits if len(kinds) == 1 else logits[places]
            chosen, found, unsure = choose(
                rows, sampling, _draws(group, rows.device), self._is_exact
            )
            if self._is_exact:
                for row in unsure.nonzero()[:, 0].tolist():
                    alone = self._alone(group[row])
                    draws = _draws(group[row : row + 1], rows.device)
                    chosen[row], found[row] = (own[0] for own in choose(alone, sampling, draws)[:2])
            for place, token_id, score in zip(places, chosen.tolist(), found.tolist(), strict=True):
                tokens[place], scores[place] = token_id, score
        return tokens, scores

    def _alone(self, sequence: Sequence) -> torch.Tensor:
        """(1, vocabulary) logits of the next token, computed without any batch."""
        import torch

        ids = torch.tensor([[*sequence.request.prompt, *sequence.answer]])
        output = self._language_model(
            input_ids=ids.to(self._language_model.device), use_cache=False, logits_to_keep=1
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _next(
        self,
        decoder: TreeDecoder | PlainDecoder,
        going: Many[Sequence],
        waiting: deque[Sequence],
    ) -> list[Sequence]:
        """The sequences that are started beside those that go on."""
        if not waiting or (going and not decoder.continuous):
            return []
        room = self._most - len(going)
        if self._columns is not None:
            prompts = {sequence.request.prompt for sequence in going}
            used = decoder.held + sum(map(len, prompts)) + sum(map(_columns_of, going))
            for count, sequence in enumerate(itertools.islice(waiting, room)):
                prompt = sequence.request.prompt
                used += _columns_of(sequence) + (0 if prompt in prompts else len(prompt))
                prompts.add(prompt)
                if used > self._columns:
                    room = count
                    break
        if not going:
            room = max(1, room)
        # To start a few costs a move of all that go on: not for every one that ends.
        elif room < min(len(waiting), REFILL * (len(going) + room)):
            return []
        new = [waiting.popleft()]
        while waiting and len(new) < room and (decoder.pads or _as_long(waiting[0], new[0])):
            new.append(waiting.popleft())
        return new

    def _shrink(
        self,
        decoder: TreeDecoder | PlainDecoder,
        going: list[Sequence],
        waiting: deque[Sequence],
    ) -> None:
        """After memory ran out, put back what was going on, to go on with fewer at once."""
        import torch

        decoder.close(keep=False)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        at_once = len(going) // 2
        if at_once == 0:
            tokens = len(going[0].request.prompt) + len(going[0].answer)
            raise InputError(f"no memory to generate after {tokens} tokens")
        self._most = at_once
        if self._columns is not None:
            self._columns = max(1, self._columns // 2)
        if self._memory is not None:
            self._memory //= 2
        say(f"memory ran out, goes on with {at_once} sequences at once")
        for sequence in going:
            sequence.columns = []
        waiting.extendleft(reversed(going))
        self._open(waiting)


def _draws(sequences: Many[Sequence], device: torch.device) -> torch.Tensor | None:
    """(sequences,) the random numbers that choose their next tokens; None if they are greedy."""
    import torch

    numbers = [float(s.draws[len(s.log_probs)]) for s in sequences if s.draws is not None]
    return torch.tensor(numbers, dtype=torch.float32, device=device) if numbers else None


def _as_long(one: Sequence, other: Sequence) -> bool:
    """Whether two sequences begin with as many tokens."""
    begins = [len(s.request.prompt) + len(s.answer) for s in (one, other)]
    return begins[0] == begins[1]


def _columns_of(sequence: Sequence) -> int:
    """Tokens that a sequence may take behind its prompt, counting the longest answer."""
    left = sequence.request.max_new_tokens - len(sequence.log_probs)
    return len(sequence.answer) + left


def _columns_in_memory(model: PreTrainedModel) -> int | None:
    """How many tokens' keys and values have room; None if that cannot be told."""
    config = model.config.get_text_config()
    layers = getattr(config, "num_hidden_layers", None)
    heads = getattr(config, "num_attention_heads", None)
    width = getattr(config, "hidden_size", None)
    if not (layers and heads and width):
        return None
    heads_of_keys = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or width // heads
    bytes_each = 2 * layers * heads_of_keys * size * model.dtype.itemsize
    return max(1, int(SHARE_FOR_CACHE * free_memory(model.device)) // bytes_each)


def _end_ids(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, end_id: int | None
) -> frozenset[int]:
    """Every token that ends an answer."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [end_id, tokenizer.eos_token_id, *ids] if isinstance(i, int))
