"""Entailment by a model behind an OpenAI-compatible server: the probability of yes against no among
the tokens that it considers where its answer stands, or else, and where it grades support, the word
that it answers with."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import accumulate
from typing import Any

from pydantic import ValidationError

from citepipe.errors import InputError
from citepipe.generate.chat import Chat, Reply
from citepipe.options import EndpointOptions
from citepipe.progress import say
from citepipe.verify.base import BySupport, Pair, Provenance
from citepipe.verify.cache import DecisionCache
from citepipe.verify.decoders import Template, read_template
from citepipe.verify.models import bounds_of

_TOP = 20


class _Judge(Chat):
    """Reads in each reply what it says of its pair."""

    template: Template

    def _reply(self, value: Any, texts: list[str]) -> Reply:
        reply = super()._reply(value, texts)
        supports = self.template.supports
        support = None
        if not self.template.between:
            support = _by_probability(value["choices"][0], self.template)
        if support is None:
            said = re.search(rf"\b({'|'.join(supports)})\b", reply.text.lower())
            support = None if said is None else supports[said[0]]
        return replace(reply, support=support)


def _by_probability(choice: dict[str, Any], template: Template) -> float | None:
    """The probability of the template's word, of the two, at the first token behind thoughts that
    spells either, or else at the first token; None where a server does not say, or nothing that
    makes sense. A word that is not among the likeliest tokens counts half of the most that it may
    have."""
    try:
        tokens, words = choice["logprobs"]["content"], (template.word, template.against)
        thought, _, said = "".join(own["token"] for own in tokens).rpartition("</think>")
        starts = accumulate((len(own["token"]) for own in tokens), initial=0)
        answers = [
            own
            for own, start in zip(tokens, starts, strict=False)
            if start >= len(thought) and own["token"].strip().lower() in words
        ]
        if "<think>" in said:
            return None
        # What says neither at all may still have considered it.
        first = (answers or tokens)[0]
        listed = (first, *first["top_logprobs"])
        spread = {own["token"]: math.exp(float(own["logprob"])) for own in listed}
        chances = [
            sum(x for token, x in spread.items() if token.strip().lower() == own) for own in words
        ]
        if not any(chances):
            return None
        rest = max(0.0, min(1 - sum(spread.values()), *spread.values())) / 2
        word, against = (chance or rest for chance in chances)
        support = word / (word + against)
    except (TypeError, KeyError, IndexError, AttributeError, ValueError, ArithmeticError):
        return None
    return support if 0 <= support <= 1 else None


class ServerVerifier(BySupport):
    """A verifier behind a server.

    Every answer is kept in the decision cache, under a digest of what was sent and the model, and
    is never requested again. What the server refuses to judge, and what is none of its answers, is
    not entailed, and counted.
    """

    question_first = False

    def __init__(
        self,
        options: EndpointOptions,
        template: Template,
        threshold: str | None = None,
        logprobs: bool = True,
        cache: DecisionCache | None = None,
    ) -> None:
        model = self.name = str(options.model)
        threshold = threshold or template.threshold
        logprobs = logprobs and not template.between
        self.bounds = bounds_of(model, threshold)
        self.graded = template.grades(self.bounds)
        self.provenance: Provenance = {
            "kind": "server",
            "model": model,
            "template": template.identity,
            "threshold": threshold,
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
            "logprobs": logprobs,
        }
        self.identity = json.dumps(self.provenance, sort_keys=True)
        self._template = template
        self._besides = {"logprobs": True, "top_logprobs": _TOP} if logprobs else {}
        prefix = f"reply {model} "
        noted = cache.notes(prefix) if cache else {}
        known = {key.removeprefix(prefix): Reply(**json.loads(said)) for key, said in noted.items()}

        def keep(key: str, reply: Reply) -> None:
            assert cache
            cache.note(prefix + key, json.dumps(asdict(reply)))

        self._judge = _Judge(options, known, keep if cache else None, f"verifier {model}")
        self._judge.template = template

    @property
    def computed(self) -> int:
        """Pairs that were sent so far, and answered or refused."""
        return self._judge.asked

    @property
    def spent(self) -> float:
        """What all answers cost, those of earlier runs too."""
        return self._judge.spent

    def supports(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[Pair, float]]]:
        """See `BySupport.supports`; all in one batch.

        Raises:
            InputError: as of `Chat.replies`; what came until then is kept.
        """
        distinct, computed = list(dict.fromkeys(pairs)), self.computed
        template = self._template
        conversations = [
            {"messages": template.conversation(pair), **template.given(pair), **self._besides}
            for pair in distinct
        ]
        replies = self._judge.replies(conversations)
        unread = [reply for reply in replies if reply is None or reply.support is None]
        if unread:
            refused = unread.count(None)
            say(
                f"verifier {self.name}: {refused} of {len(distinct)} pairs refused"
                f"{self._judge.refusal}, {len(unread) - refused} answered by none of "
                f"{', '.join(template.supports)}; they count as not entailed"
            )
        if self._judge.spent and self.computed > computed:
            account = ", ".join(f"{key} {x:.6g}" for key, x in self._judge.account().items())
            say(f"verifier {self.name}, over all runs: {account}")
        yield [
            (pair, (reply.support if reply else None) or 0.0)
            for pair, reply in zip(distinct, replies, strict=True)
        ]


def load_server(
    spec: str, target: str, settings: dict[str, str], cache: DecisionCache | None
) -> ServerVerifier:
    """The verifier of a spec.

    Args:
        spec: as it was written, for errors.
        target: `URL#MODEL`.
        settings: `template` (`read_template`), `threshold` (`bounds_of`), `logprobs` (0 for servers
            that refuse to be asked for them), and fields of `EndpointOptions`.
        cache: where answers are kept.
    """
    url, _, model = target.partition("#")
    template = read_template(model, settings.pop("template", None))
    threshold, logprobs = settings.pop("threshold", None), settings.pop("logprobs", "1")
    if not model or logprobs not in ("0", "1") or {"url", "model", "system"} & set(settings):
        raise InputError(f"verifier {spec!r}: expected server:URL#MODEL, perhaps with settings")
    values = {"temperature": 0.0, "max_tokens": 16, **settings, "url": url, "model": model}
    try:
        options = EndpointOptions.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        place = ".".join(map(str, found["loc"]))
        raise InputError(f"verifier {spec!r}: {place}: {found['msg']}") from None
    return ServerVerifier(options, template, threshold, logprobs == "1", cache)
