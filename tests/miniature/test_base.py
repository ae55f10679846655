from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from citepipe.miniature.base import pretrain
from citepipe.miniature.copying import (
    Reading,
    build_model,
    collate,
    learning_rate_share,
    weighted_loss,
)
from citepipe.options import BaseModelOptions, MiniatureOptions

TINY = BaseModelOptions(
    layers=2, width=32, heads=2, feed_forward=16, drill_steps=1, steps=1, batch_size=2
)


def test_pretraining_leaves_a_model_that_loads(tmp_path: Path) -> None:
    line = pretrain(MiniatureOptions(base=TINY), tmp_path / "base")
    assert line.startswith("base: parameters ")
    assert ", steps 2, tokens " in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_same_seed_same_weights(tmp_path: Path) -> None:
    for name in ("first", "again"):
        pretrain(MiniatureOptions(base=TINY, seed=5), tmp_path / name)
    first, again = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("first", "again"))
    assert first == again


def test_default_fits_in_four_megabytes() -> None:
    model = build_model(BaseModelOptions(), 582, 0, 1)
    assert sum(p.numel() for p in model.parameters()) * 4 < 3.9e6


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
    shares = [learning_rate_share(step, 20, 4, 0.5, 0.1) for step in range(20)]
    assert shares[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert shares[9] == 1.0
    assert shares[14] == pytest.approx(0.55)
    assert shares[19] == pytest.approx(0.1)


def test_collate_pads_on_the_right_without_weight() -> None:
    ids, weights = collate([Reading([5, 6], [0.0, 1.0]), Reading([7], [0.5])], pad=9)
    assert ids.tolist() == [[5, 6], [7, 9]]
    assert weights.tolist() == [[0.0, 1.0], [0.5, 0.0]]


def test_loss_of_a_model_that_knows_nothing_is_log_of_the_vocabulary() -> None:
    model = build_model(TINY, 50, 0, 1)
    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()
    loss, _ = weighted_loss(model, torch.tensor([[3, 4, 5]]), torch.tensor([[1.0, 0.1, 1.0]]))
    assert loss.item() == pytest.approx(3.912, abs=1e-3)  # ln 50
