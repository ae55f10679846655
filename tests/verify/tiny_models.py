"""Tiny verifier models with random weights and word tokenizers, in directories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

SPECIAL = ["<pad>", "</s>", "<unk>", "<s>"]


def save_tokenizer(
    directory: Path, words: Sequence[str], single: str = "$A </s>", pair: str = "", **settings: Any
) -> dict[str, int]:
    """A tokenizer that splits at spaces; returns its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair or None, special_tokens=[("</s>", 1), ("<s>", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        **settings,
    ).save_pretrained(directory)
    return vocabulary


def make_t5(directory: Path, words: Sequence[str], **settings: Any) -> Any:
    """A T5 with random weights, not yet saved, beside its saved tokenizer."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.set_num_threads(1)
    torch.manual_seed(3)
    vocabulary = save_tokenizer(directory, words)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(vocabulary),
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=1,
            tie_word_embeddings=False,
            **shape | settings,
        )
    )


def make_classifier(
    directory: Path, kind: str, words: Sequence[str], labels: Sequence[str]
) -> Path:
    """A classifier with large random weights: `bert`, which tells segments apart, `tokens`, which
    is one of tokens, `roberta`, whose positions begin behind its padding index, or `llama`."""
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.manual_seed(5)
    config: Any = transformers.BertConfig
    model: Any = transformers.BertForSequenceClassification
    if kind in ("bert", "tokens"):
        pair, more = "<s> $A </s> $B:1 </s>:1", ["token_type_ids"]
        model = transformers.BertForTokenClassification if kind == "tokens" else model
    else:
        pair, more = "<s> $A </s> </s> $B </s>", []
        config, model = transformers.RobertaConfig, transformers.RobertaForSequenceClassification
        if kind == "llama":
            config, model = transformers.LlamaConfig, transformers.LlamaForSequenceClassification
    names = ["input_ids", *more, "attention_mask"]
    vocabulary = save_tokenizer(
        directory, words, single="<s> $A </s>", pair=pair, model_input_names=names
    )
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    model(
        config(
            vocab_size=len(vocabulary),
            num_attention_heads=2,
            max_position_embeddings=33 if kind == "roberta" else 64,
            initializer_range=1.0,
            pad_token_id=0,
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
            **shape,
        )
    ).save_pretrained(directory)
    return directory


CHAT = (
    "{% if documents %}{{ documents | tojson }} {% endif %}{% for message in messages %}<s> "
    "{{ message.role }} {{ message.content }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)


def make_decoder(directory: Path, words: Sequence[str]) -> Path:
    """A Llama with large random weights and a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(7)
    vocabulary = save_tokenizer(directory, words, single="$A", chat_template=CHAT)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            initializer_range=1.0,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    ).save_pretrained(directory)
    return directory
