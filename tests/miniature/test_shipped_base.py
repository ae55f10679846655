"""The base model in the repository is what the rule that remakes it would make."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from citepipe.data.prompts import render
from citepipe.miniature.base import untrained
from citepipe.miniature.tokenizer import build_tokenizer
from citepipe.miniature.world import build_world
from citepipe.options import MiniatureOptions, WorldOptions

BASE = Path(__file__).parents[2] / "workflow" / "resources" / "miniature-base"
OPTIONS = MiniatureOptions()


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in BASE.iterdir()) < 4 * 10**6


def test_tokenizer_is_that_of_the_code() -> None:
    assert AutoTokenizer.from_pretrained(BASE).get_vocab() == build_tokenizer().get_vocab()


def test_shapes_are_those_of_the_options() -> None:
    shipped = AutoModelForCausalLM.from_pretrained(BASE).state_dict()
    built = untrained(OPTIONS.base, len(build_tokenizer()), 0, 1).state_dict()
    assert {name: t.shape for name, t in shipped.items()} == {
        name: t.shape for name, t in built.items()
    }


@pytest.mark.parametrize("dataset", ["asqa", "eli5", "qampari"])
def test_it_answers_unseen_questions_without_citing(dataset: str) -> None:
    world = build_world(WorldOptions(train=1, dev=16, test=1, expertqa=1), seed=0)
    dev = [drawn for drawn in world.splits["dev"] if drawn.example.dataset == dataset]
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model = AutoModelForCausalLM.from_pretrained(BASE).eval()
    prompts = [render(drawn.example, OPTIONS.prompt) for drawn in dev]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.no_grad():
        out = model.generate(**batch, max_new_tokens=40, do_sample=False)
    answers = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], True)
    assert not any("[" in answer for answer in answers)
    found = [
        claim.text in a for a, drawn in zip(answers, dev, strict=True) for claim in drawn.claims
    ]
    assert sum(found) > 0.5 * len(found)
