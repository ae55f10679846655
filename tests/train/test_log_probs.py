"""Log-probabilities and entropies in chunks, against whole logits."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from citepipe.train.log_probs import TokenHead

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}


def _model(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    special = {"bos_token_id": 1, "eos_token_id": 2}
    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}
    makers = {
        "capped": lambda: Gemma2ForCausalLM(
            Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0)
        ),
        "scaled": lambda: CohereForCausalLM(CohereConfig(**SIZES, logit_scale=0.3)),
        "plain": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, **special)
        ),
        "opt": lambda: OPTForCausalLM(
            OPTConfig(vocab_size=50, hidden_size=16, ffn_dim=32, word_embed_proj_dim=16, **small)
        ),
    }
    return makers[name]().eval()


@pytest.mark.parametrize("name", ["capped", "scaled", "plain", "gpt2", "opt"])
def test_they_are_those_of_the_models_own_logits(name: str) -> None:
    model = _model(name)
    ids = torch.randint(3, 50, (2, 9))
    # 16 predictions in chunks of 5.
    head = TokenHead(model, at_once=5 * 50)
    hidden = head.hidden(input_ids=ids)[:, :-1].flatten(0, 1)
    found, entropy = head(hidden, ids[:, 1:].flatten(), with_entropy=True)
    scores = model(input_ids=ids).logits.float().log_softmax(dim=-1)[:, :-1]
    expected = scores.gather(2, ids[:, 1:, None]).flatten()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        entropy, -(scores.exp() * scores).sum(dim=-1).flatten().detach(), atol=1e-5, rtol=0
    )


def test_the_gradient_does_not_depend_on_chunks() -> None:
    model = _model("capped")
    ids = torch.randint(3, 50, (1, 12))
    gradients = []
    for at_once in (3 * 50, 2**25):
        model.zero_grad()
        head = TokenHead(model, at_once=at_once)
        head(head.hidden(input_ids=ids)[0, :-1], ids[0, 1:])[0].sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_no_tokens_have_no_log_probabilities() -> None:
    head = TokenHead(_model("plain"))
    found, entropy = head(torch.zeros(0, 16), torch.zeros(0, dtype=torch.long), with_entropy=True)
    assert found.shape == entropy.shape == (0,)
