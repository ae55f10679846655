"""Cited answers from a large model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from citepipe.data.example import Example
from citepipe.data.prompts import fit
from citepipe.errors import InputError
from citepipe.generate.chat import Chat, Reply, tokens_of, whole_and_cut
from citepipe.options import EndpointOptions, TemplateOptions
from citepipe.progress import say
from citepipe.runstate import append_journal, read_journal


class Endpoint(Chat):
    """Sends questions to a large model, each at most once; answers are kept in a journal, if any.
    `label` as of `Chat`."""

    def __init__(
        self,
        options: EndpointOptions,
        prompt: TemplateOptions,
        journal: Path | None,
        label: str = "teacher",
    ) -> None:
        if options.model is None:
            raise InputError("teacher.endpoint.model: missing, expected the name of a model")
        self.prompt = prompt
        noted = []
        if journal is not None:
            journal.parent.mkdir(parents=True, exist_ok=True)
            noted = read_journal(journal)
        try:
            known = {own["asked"]: Reply(**own["reply"]) for own in noted}
        except (TypeError, KeyError):
            line = f"{journal}: expected the journal of a teacher, remove it to begin anew"
            raise InputError(line) from None

        def keep(key: str, reply: Reply) -> None:
            assert journal
            append_journal(journal, [{"asked": key, "reply": asdict(reply)}])

        super().__init__(options, known, keep if journal else None, label)

    def answer(self, examples: Sequence[Example]) -> list[Example]:
        """The examples with the model's cited answers as their `output`; those that it refuses or
        does not finish keep none. Raises as `replies` does."""
        prompts = [
            fit(example, self.prompt, lambda text: range(tokens_of([text])), "".join)
            for example in examples
        ]
        replies = self.replies([self._conversation(prompt.messages) for prompt in prompts])
        distinct = dict(zip((prompt.messages for prompt in prompts), replies, strict=True))
        whole, cut = whole_and_cut(list(filter(None, distinct.values())))
        if whole < len(distinct):
            say(
                f"{self.label}: {len(distinct) - whole - cut} questions refused{self.refusal}, "
                f"{cut} answers cut off at max_tokens; they are left without an answer"
            )
        if shortened := sum(prompt.shortened for prompt in prompts):
            line = f"documents of {shortened} prompts were shortened to fit max_input_tokens"
            say(f"{self.label}: {line}")
        return [
            replace(e, output=(r.text or None) if r and r.is_whole else None)
            for e, r in zip(examples, replies, strict=True)
        ]

    def _conversation(self, texts: Sequence[str]) -> dict[str, list[dict[str, str]]]:
        system = self.options.system
        messages = [] if system is None else [{"role": "system", "content": system}]
        for place, text in enumerate(texts):
            messages.append({"role": "assistant" if place % 2 else "user", "content": text})
        return {"messages": messages}
