from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from citepipe.data.prompts import render
from citepipe.miniature.base import (
    build_model,
    collate,
    learning_rate_share,
    pretrain,
    weighted_loss,
)
from citepipe.miniature.corpus import Reading, build_tokenizer
from citepipe.miniature.world import build_world
from citepipe.options import BaseModelOptions, MiniatureOptions, WorldOptions

BASE = Path(__file__).parents[2] / "workflow" / "resources" / "miniature-base"
OPTIONS = MiniatureOptions()
TINY = BaseModelOptions(
    layers=2, width=32, heads=2, feed_forward=16, drill_steps=1, steps=1, batch_size=2
)


def test_the_same_seed_gives_the_same_weights_and_a_model_that_loads(tmp_path: Path) -> None:
    for name in ("first", "again"):
        line = pretrain(MiniatureOptions(base=TINY, seed=5), tmp_path / name)
        assert ", steps 2, loss " in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "first"]
    first, again = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("first", "again"))
    assert first == again
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "first")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_prepared_heads_look_one_two_and_three_back() -> None:
    torch.manual_seed(0)
    model = build_model(BaseModelOptions(), 582, 0, 1).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(torch.randint(3, 582, (1, 40)), output_attentions=True)
    attention = out.attentions[0][0]
    for head in range(3):
        assert attention[head, 10:].argmax(-1).tolist() == list(range(9 - head, 39 - head))


def test_learning_rate_warms_up_holds_and_falls() -> None:
    shares = [learning_rate_share(step, 200) for step in (0, 14, 29, 99, 149, 199)]
    assert shares == pytest.approx([1 / 30, 0.5, 1, 1, 0.515, 0.03])


def test_loss_of_a_model_that_knows_nothing_is_log_of_the_vocabulary() -> None:
    model = build_model(TINY, 50, 0, 1)
    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()
    batch = collate([Reading([3, 4, 5], [1.0, 0.1, 1.0]), Reading([6], [1.0])], pad=9)
    assert batch[0].tolist() == [[3, 4, 5], [6, 9, 9]]
    loss = weighted_loss(model, *batch)
    assert loss.item() == pytest.approx(3.912, abs=1e-3)  # ln 50


def test_the_shipped_base_is_small_and_has_the_shapes_and_tokens_of_the_options() -> None:
    assert sum(path.stat().st_size for path in BASE.iterdir()) < 4 * 10**6
    assert AutoTokenizer.from_pretrained(BASE).get_vocab() == build_tokenizer().get_vocab()
    shipped = AutoModelForCausalLM.from_pretrained(BASE).state_dict()
    built = build_model(OPTIONS.base, len(build_tokenizer()), 0, 1).state_dict()
    assert {n: t.shape for n, t in shipped.items()} == {n: t.shape for n, t in built.items()}


@pytest.mark.parametrize("dataset", ["asqa", "eli5", "qampari"])
def test_the_shipped_base_answers_unseen_questions_without_citing(dataset: str) -> None:
    world = build_world(WorldOptions(train=1, dev=16, test=1, expertqa=1), seed=0)
    dev = [drawn for drawn in world["dev"] if drawn.example.dataset == dataset]
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
