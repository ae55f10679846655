"""The generator that runs a Hugging Face causal language model in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from citepipe.errors import InputError
from citepipe.generate.completion import Completion, Request, Sampling, SegmentEnd
from citepipe.generate.detokenize import Detokenizer
from citepipe.models.memory import is_out_of_memory
from citepipe.progress import say

if TYPE_CHECKING:
    import numpy as np
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class HuggingFaceGenerator:
    """Batched decoding with a key-value cache.

    Requests with the same prompt share its prefill. Rows that have ended leave the batch. Every
    random draw comes from the request's own key, one uniform number per token, so the same
    request gets the same draws whatever it is batched with.

    Args:
        model: a causal language model, or a PEFT model around one.
        tokenizer: its tokenizer.
        batch_size: sequences decoded at once; fewer from then on when memory runs out.
        end_id: the token that ends an answer (`encode.end_token`); None for the tokenizer's end of
            sequence. Those of the model's generation configuration end it too.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        end_id: int | None = None,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.detokenizer = Detokenizer(tokenizer)
        self.pad_id = int(tokenizer.pad_token_id)
        self.eos_ids = _end_ids(model, tokenizer, end_id)

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        segment_end: SegmentEnd | None = None,
    ) -> list[Completion]:
        """See `Generator.generate`."""
        import torch

        completions: list[Completion | None] = [None] * len(requests)
        # Like lengths together, so that little is padding; equal prompts stay neighbours.
        order = sorted(
            range(len(requests)), key=lambda i: (len(requests[i].token_ids), requests[i].token_ids)
        )
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                start = 0
                while start < len(order):
                    batch = order[start : start + self.batch_size]
                    results = self._try([requests[i] for i in batch], sampling, segment_end)
                    for i, completion in zip(batch, results, strict=False):
                        completions[i] = completion
                    start += len(results)
        finally:
            self.model.train(was_training)
        return [completion for completion in completions if completion is not None]

    def _try(
        self, requests: Sequence[Request], sampling: Sampling, segment_end: SegmentEnd | None
    ) -> list[Completion]:
        """Completions of the first requests, all of them unless memory runs out."""
        import torch

        while True:
            try:
                return list(self._decode(requests[: self.batch_size], sampling, segment_end))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the handler, whose traceback holds the tensors.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            at_once = min(self.batch_size, len(requests)) // 2
            if at_once == 0:
                raise InputError(
                    f"no memory to generate after a prompt of {len(requests[0].token_ids)} tokens"
                )
            self.batch_size = at_once
            say(f"memory ran out, goes on with {at_once} sequences at once")

    def _decode(
        self, requests: Sequence[Request], sampling: Sampling, segment_end: SegmentEnd | None
    ) -> Iterator[Completion]:
        import torch

        logits, cache, mask = self._prefill([request.token_ids for request in requests])
        device = logits.device
        uniforms = None
        if sampling.temperature > 0:
            draws = [_uniforms(request, sampling.seed) for request in requests]
            width = max(len(draw) for draw in draws)
            uniforms = torch.zeros(len(draws), width, dtype=torch.float32)
            for row, draw in enumerate(draws):
                uniforms[row, : len(draw)] = torch.from_numpy(draw)
            uniforms = uniforms.to(device)
        tokens: list[list[int]] = [[] for _ in requests]
        log_probs: list[list[float]] = [[] for _ in requests]
        finished = [False] * len(requests)
        cuts: list[int | None] = [None] * len(requests)
        alive = [row for row, request in enumerate(requests) if request.max_new_tokens > 0]
        step = 0
        while alive:
            drawn = None if uniforms is None else uniforms[torch.tensor(alive), step]
            chosen = _choose(logits, sampling, drawn)
            scores = torch.log_softmax(logits.float(), dim=-1).gather(1, chosen[:, None])[:, 0]
            keep = []
            for place, (row, token, score) in enumerate(
                zip(alive, chosen.tolist(), scores.tolist(), strict=True)
            ):
                tokens[row].append(token)
                log_probs[row].append(score)
                if token in self.eos_ids or "\n" in self.detokenizer.piece(token):
                    finished[row] = True
                    continue
                if segment_end is not None:
                    cuts[row] = segment_end(self.detokenizer.decode(tokens[row]))
                if cuts[row] is None and len(tokens[row]) < requests[row].max_new_tokens:
                    keep.append(place)
            step += 1
            if not keep:
                break
            if len(keep) < len(alive):
                index = torch.tensor(keep, device=device)
                cache.batch_select_indices(index)
                mask, chosen = mask[index], chosen[index]
                alive = [alive[place] for place in keep]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            output = self.model(
                input_ids=chosen[:, None],
                attention_mask=mask,
                position_ids=mask.sum(dim=1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            )
            logits = output.logits[:, -1]
        for row in range(len(requests)):
            yield self._completion(tokens[row], log_probs[row], finished[row], cuts[row])

    def _prefill(
        self, prompts: Sequence[tuple[int, ...]]
    ) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """Run each distinct prompt once.

        Returns:
            logits (rows, vocabulary) after each prompt, the cache and the attention mask (rows,
            longest prompt), a row per prompt given, left-padded.
        """
        import torch
        from transformers import DynamicCache

        distinct = list(dict.fromkeys(prompts))
        longest = max(len(prompt) for prompt in distinct)
        device = self.model.device
        ids = torch.full((len(distinct), longest), self.pad_id, dtype=torch.long)
        mask = torch.zeros((len(distinct), longest), dtype=torch.long)
        for row, prompt in enumerate(distinct):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        cache = DynamicCache(config=self.model.config)
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        place = {prompt: row for row, prompt in enumerate(distinct)}
        index = torch.tensor([place[prompt] for prompt in prompts], device=device)
        if len(distinct) < len(prompts):
            cache.batch_select_indices(index)
        else:
            index = torch.arange(len(prompts), device=device)
        return output.logits[index, -1], cache, mask[index]

    def _completion(
        self, token_ids: list[int], log_probs: list[float], finished: bool, cut: int | None
    ) -> Completion:
        # What ends an answer is no part of its text, whether the tokenizer calls it special or not.
        ended = bool(token_ids) and token_ids[-1] in self.eos_ids
        text, offsets = self.detokenizer.text_and_offsets(token_ids[:-1] if ended else token_ids)
        if ended:
            offsets.append((len(text), len(text)))
        if cut is not None:
            # A token that reaches over the segment's end is kept whole.
            count = sum(start < cut for start, _ in offsets)
            token_ids, log_probs = token_ids[:count], log_probs[:count]
            text, offsets = self.detokenizer.text_and_offsets(token_ids)
        end = text.find("\n")
        if end >= 0:
            text = text[:end]
            offsets = [(min(a, end), min(b, end)) for a, b in offsets]
        return Completion(tuple(token_ids), text, tuple(offsets), tuple(log_probs), finished)


def _choose(
    logits: torch.Tensor, sampling: Sampling, uniforms: torch.Tensor | None
) -> torch.Tensor:
    """The next token of every row.

    Args:
        logits: (rows, vocabulary).
        sampling: temperature and top-k.
        uniforms: (rows,), a number in [0, 1) per row; None for greedy decoding.

    Returns:
        (rows,) token ids: the token in which the cumulative probability, likeliest token first,
        passes the uniform number.
    """
    if uniforms is None:
        return logits.argmax(dim=-1)
    scaled = logits.float() / sampling.temperature
    count = min(sampling.top_k or scaled.shape[-1], scaled.shape[-1])
    values, ids = scaled.topk(count, dim=-1)
    cumulative = values.softmax(dim=-1).cumsum(dim=-1)
    # Rounding can leave the last cumulative sum below the draw.
    place = (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(dim=-1).clamp(max=count - 1)
    return ids.gather(1, place[:, None])[:, 0]


def _uniforms(request: Request, seed: int) -> np.ndarray:
    """(max_new_tokens,) float32 in [0, 1), a function of the seed and the request's key only."""
    import numpy as np

    digest = hashlib.blake2b(f"{seed}|{request.key}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    return generator.random(request.max_new_tokens, dtype=np.float32)


def _end_ids(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, end_id: int | None
) -> frozenset[int]:
    """Every token that ends an answer."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [end_id, tokenizer.eos_token_id, *ids] if isinstance(i, int))
