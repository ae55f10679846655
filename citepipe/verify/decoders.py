"""Entailment by decoders that answer yes or no: the probability of the one against the other; or
that grade support as full, partial or none: the likeliest of the three words.

A template is the conversation that a model of its family was trained to judge; the probability is
that of all tokens that spell the word (`Yes`, ` yes`), at the place where the answer begins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from citepipe.data.files import read_text
from citepipe.errors import InputError
from citepipe.models.encode import render, spell
from citepipe.models.pretrained import Checkpoint, load_checkpoint
from citepipe.provenance import digest_of
from citepipe.verify.base import Pair, Provenance
from citepipe.verify.models import BatchedVerifier, bounds_of, most_tokens

if TYPE_CHECKING:
    from transformers import BatchEncoding

MAX_LENGTH = 8192


class Template(NamedTuple):
    """A conversation that ends in a question: roles and texts with {premise} and {claim}.

    `name` is what it is called. `word` is the answer that means supported, `against` the one that
    means it is not, `between`, if there is one, that it is in part. `documents`: the premise is
    what the chat template calls a document. `opening` is what a model without thoughts writes in
    front of the word.
    """

    name: str
    messages: tuple[tuple[str, str], ...]
    word: str = "yes"
    against: str = "no"
    documents: bool = False
    opening: str = ""
    between: str | None = None

    @property
    def supports(self) -> dict[str, float]:
        """How far each answer says that the claim is supported."""
        middle = {self.between: 0.5} if self.between else {}
        return {self.word: 1.0, self.against: 0.0, **middle}

    @property
    def threshold(self) -> str:
        """The bounds (`bounds_of`) unless others are given: what is in part is between them."""
        return "0.25-0.75" if self.between else "0.5"

    def grades(self, bounds: tuple[float, float]) -> bool:
        """Whether these bounds keep what is in part apart from the rest."""
        return self.between is not None and bounds[0] < 0.5 <= bounds[1]

    @property
    def identity(self) -> str:
        """Its name, and a digest of all that it says."""
        return f"{self.name} {digest_of(self)}"

    def conversation(self, pair: Pair) -> list[dict[str, str]]:
        """The messages about a pair."""
        values = {"{premise}": pair.premise, "{claim}": pair.hypothesis}
        return [
            {
                "role": role,
                "content": re.sub(r"\{premise\}|\{claim\}", lambda m: values[m[0]], text),
            }
            for role, text in self.messages
        ]

    def given(self, pair: Pair) -> dict[str, Any]:
        """What the chat template, or a server, is given beside the messages."""
        return {"documents": [{"doc_id": "0", "text": pair.premise}]} if self.documents else {}


_TEMPLATES = (
    # Liyan06/MiniCheck, minicheck/utils.py: what bespokelabs/Bespoke-MiniCheck-7B was trained with.
    Template(
        "minicheck",
        (
            (
                "system",
                "Determine whether the provided claim is consistent with the corresponding "
                "document. Consistency in this context implies that all information presented in "
                "the claim is substantiated by the document. If not, it should be considered "
                "inconsistent. Please assess the claim's consistency with the document by "
                'responding with either "Yes" or "No".',
            ),
            ("user", "Document: {premise}\nClaim: {claim}"),
        ),
    ),
    # ibm-granite/granite-guardian, evaluation/models/granite_guardian_4_1.py: the criterion of
    # groundedness, without thoughts; its yes is of what is not grounded.
    Template(
        "granite-guardian",
        (
            ("assistant", "{claim}"),
            (
                "user",
                "<guardian><no-think>As a judge agent, assess whether the provided text meets the "
                "given judging criteria using all available information, including conversations, "
                "documents, and tools. Provide your score immediately without explanation. Output "
                "empty <think>\n</think> tags followed by your score in <score></score> tags.\n\n"
                "### Criteria: A text is considered ungrounded or unfaithful if it includes "
                "information lacking support from, or directly contradicting, the provided "
                "document(s). This risk arises when the text fabricates details, misinterprets the "
                "content, or makes unsupported extrapolations beyond what is explicitly stated in "
                "the document(s).\n\n### Scoring Schema: If the last assistant's text meets the "
                "criteria, return 'yes'; otherwise, return 'no'.",
            ),
        ),
        word="no",
        against="yes",
        documents=True,
        opening="<think>\n</think>\n<score>",
    ),
    # The scale of TREC's RAG track (Thakur et al. 2025, arXiv 2504.15205), in words of our own.
    Template(
        "graded",
        (
            (
                "user",
                "How far does the document support the claim? Answer with one of these, and "
                "nothing else.\n\nFull support: the document says everything that the claim says."
                "\nPartial support: the document says some of it, and not all.\nNo support: the "
                "document says nothing of it, or something else.\n\nDocument: {premise}\n\n"
                "Claim: {claim}",
            ),
        ),
        word="full",
        between="partial",
    ),
)
TEMPLATES = {template.name: template for template in _TEMPLATES}


def read_template(target: str, named: str | None) -> Template:
    """A template by its key in `TEMPLATES`; or a file whose text, with {premise} and {claim}, is
    the only message, and asks for yes or no, or, if it speaks of partial support, for full, partial
    or no. By default the one of the model's family, or `minicheck`."""
    if named is None:
        named = next((key for key in TEMPLATES if key in target.lower()), "minicheck")
    if named in TEMPLATES:
        return TEMPLATES[named]
    if not Path(named).is_file():
        keys = ", ".join(TEMPLATES)
        raise InputError(f"verifier {target}: template {named!r}, expected {keys}, or a file")
    text = read_text(named).strip()
    for field in ("{premise}", "{claim}"):
        if field not in text:
            raise InputError(f"{named}: expected a template with {field}")
    template = Template(Path(named).name, (("user", text),))
    if "partial support" in text.lower():
        return template._replace(word="full", between="partial")
    return template


class DecoderVerifier(BatchedVerifier):
    """A verifier over a loaded decoder: support is the probability of the template's word, against
    that of the other one, or 1, 0.5 or 0 by the likeliest of three. A premise that is too long is
    cut at its end, the claim is not."""

    def __init__(
        self, checkpoint: Checkpoint, template: Template, threshold: str | None = None
    ) -> None:
        limit = most_tokens(checkpoint, MAX_LENGTH)
        threshold = threshold or template.threshold
        settings: Provenance = {"template": template.identity, "threshold": threshold}
        super().__init__(checkpoint, "decoder", limit, settings, threshold)
        self._template, self.graded = template, template.grades(self.bounds)
        tokenizer = self._tokenizer
        if not tokenizer.chat_template:
            raise InputError(f"verifier {self.name}: its tokenizer has no chat template")
        # The answer follows the last token of every row.
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        known = [(token.strip("▁Ġ ").lower(), i) for token, i in tokenizer.get_vocab().items()]
        self._words = [
            sorted(i for token, i in known if token == word) for word in template.supports
        ]
        if not all(self._words):
            words = ", ".join(template.supports)
            raise InputError(f"verifier {self.name}: its tokenizer has no token for one of {words}")

    def _encode(self, pairs: Sequence[Pair]) -> Mapping[str, list[list[int]]]:
        rows = [self._row(pair) for pair in pairs]
        return {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}

    def _row(self, pair: Pair) -> list[int]:
        encode = spell(self._tokenizer).encode
        text = self._text(pair)
        ids = encode(text)
        if len(ids) <= self.max_length:
            return ids
        # Where the premise stands, a character that no text has: the template may escape it.
        before, _, after = self._text(pair._replace(premise="\U0010fffd")).partition("\U0010fffd")
        parts = [before, text[len(before) : len(text) - len(after)], after]
        first, premise, last = map(encode, parts)
        ids = [*first, *premise[: max(0, self.max_length - len(first) - len(last))], *last]
        return ids[-self.max_length :]

    def _text(self, pair: Pair) -> str:
        spelt = Pair(*map(spell(self._tokenizer).escape, pair))
        template = self._template
        text = render(self._tokenizer, template.conversation(spelt), **template.given(spelt))
        if text.rstrip().endswith("<think>"):
            text += "\n</think>\n\n"
        return text + template.opening

    def _step(self, batch: BatchEncoding) -> list[float]:
        import torch

        mask = batch.attention_mask
        logits = self._model(
            input_ids=batch.input_ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            logits_to_keep=1,
            use_cache=False,
        ).logits[:, -1]
        words = torch.stack([logits[:, ids].double().logsumexp(-1) for ids in self._words])
        if self._template.between:
            supports = list(self._template.supports.values())
            return [supports[likeliest] for likeliest in words.argmax(0).tolist()]
        support: list[float] = torch.sigmoid(words[0] - words[1]).tolist()
        return support


def load_decoder(
    target: str,
    device: str = "auto",
    template: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    threshold: str | None = None,
) -> DecoderVerifier:
    """Load a decoder that answers as a template asks for; `template` as of `read_template`,
    `threshold` as of `bounds_of`."""
    conversation = read_template(target, template)
    bounds_of(target, threshold)
    checkpoint = load_checkpoint(target, "AutoModelForCausalLM", device, dtype, revision)
    return DecoderVerifier(checkpoint, conversation, threshold)
