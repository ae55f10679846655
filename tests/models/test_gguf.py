"""A tiny Llama is written as GGUF, its weights quantized, and made into a base again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from citepipe.config import load_config
from citepipe.errors import InputError
from citepipe.inputs import localise
from citepipe.models.gguf import prepare_base
from citepipe.models.load import load_base, load_tokenizer
from citepipe.options import SourcesOptions

from .tiny import logits, options

Captured = pytest.CaptureFixture[str]

WIDTH, HEADS, CONTEXT = 32, 2, 64
KIND = gguf.GGMLQuantizationType.Q4_1
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|answer|>"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}


def _name(key: str) -> str:
    module = key.removesuffix(".weight")
    if module in ENDS:
        return f"{ENDS[module]}.weight"
    _, _, layer, inside = module.split(".", 3)
    return f"blk.{layer}.{NAMES[inside]}.weight"


def _write(path: Path) -> Any:
    """Write a model of random weights; returns it as it is after quantization."""
    torch.manual_seed(0)
    tokens = [chr(i) for i in range(33, 123)] + ["Ġ", "ab", "<|end|>", "<|pad|>"]
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=HEADS,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            initializer_range=0.3,
        )
    )
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(64)
    writer.add_block_count(2)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 2) + [3, 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 2)
    writer.add_pad_token_id(len(tokens) - 1)
    writer.add_chat_template(TEMPLATE)
    for key, weight in model.model.named_parameters(prefix="model"):
        values = weight.detach().numpy()
        # The rotated halves of a head lie side by side in GGUF.
        if "q_proj" in key or "k_proj" in key:
            pairs = values.reshape(HEADS, 2, WIDTH // HEADS // 2, WIDTH)
            values = np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))
        if values.ndim == 1:
            writer.add_tensor(_name(key), values)
            continue
        blocks = gguf.quants.quantize(values, KIND)
        writer.add_tensor(_name(key), blocks, raw_dtype=KIND)
        rounded = gguf.quants.dequantize(blocks, KIND)
        if "q_proj" in key or "k_proj" in key:
            pairs = rounded.reshape(HEADS, WIDTH // HEADS // 2, 2, WIDTH)
            rounded = pairs.swapaxes(1, 2).reshape(rounded.shape)
        weight.data = torch.from_numpy(np.array(rounded))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _prepare(given: object, out: Path) -> str:
    return prepare_base(str(given), out, "float32", SourcesOptions())


def test_a_base_of_gguf_is_that_model_and_says_what_it_is(tmp_path: Path) -> None:
    model = _write(tmp_path / "tiny.gguf")
    line = _prepare(tmp_path / "tiny.gguf", tmp_path / "base")
    base = load_base(options(tmp_path / "base"))
    torch.testing.assert_close(logits(base), logits(model), rtol=1e-4, atol=1e-4)
    assert {tensor.dtype for tensor in load_file(tmp_path / "base/model.safetensors").values()} == {
        torch.float32
    }
    tokenizer = load_tokenizer(options(tmp_path / "base"))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|pad|>")
    assert tokenizer.chat_template == TEMPLATE
    assert "kind llama" in line
    assert "15 Q4_1, 5 F32" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "tiny.gguf"]


def test_a_file_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_model").mkdir()
    (tmp_path / "some_model" / "__init__.py").write_text("raise RuntimeError")
    _write(tmp_path / "some_model" / "tiny.gguf")
    monkeypatch.syspath_prepend(tmp_path)
    assert "of package:some_model/tiny.gguf" in _prepare(
        "package:some_model/tiny.gguf", tmp_path / "base"
    )


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("none.gguf", "none.gguf: no such file"),
        ("package:no_such_package/a.gguf", "no package no_such_package is installed here"),
        ("package:gguf/a.gguf", "package:gguf/a.gguf: no such file"),
        ("text.gguf", "no GGUF of a language model that transformers reads: "),
        ("half.gguf", "no GGUF of a language model that transformers reads: "),
    ],
)
def test_what_is_no_model_is_one_line(
    given: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.gguf").write_text("a text")
    _write(Path("whole.gguf"))
    Path("half.gguf").write_bytes(Path("whole.gguf").read_bytes()[:4000])
    with pytest.raises(InputError, match=line) as raised:
        _prepare(given, tmp_path / "base")
    assert "\n" not in str(raised.value)
    assert not Path("base").exists()


def test_a_base_in_gguf_is_a_source_that_a_run_makes_a_model_of() -> None:
    raw: dict[str, Any] = {
        "verifiers": {"train": "lexical", "report": {"lexical": "lexical"}},
        "systems": {"people": {"outputs": {"asqa": "a.json"}}},
    }
    for base in ("models/a.gguf", "package:a/a.gguf", "hf://owner/name/a.gguf"):
        config, sources = localise(load_config(raw | {"model": {"base": base}}))
        [(folder, source)] = sources.items()
        assert (config.model and config.model.base, source.address) == (folder, base)
        assert folder.startswith("results/sources/")
