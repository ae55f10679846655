"""The miniature's tokenizer: one token for every word of its language, bytes for all else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from citepipe.miniature.language import words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"
CUES = ("Question:", "Answer:", "Facts:")
CITATIONS = tuple(f"[{number}]" for number in range(1, 6))


def pieces() -> list[str]:
    """All pieces of text that are one token, bytes apart.

    Words and citations carry the space in front of them, so that a word is the same token
    wherever it stands; a second citation has no space.
    """
    spaced = [f" {word}" for word in (*CITATIONS, *words())]
    return [".", ",", ":", "?", "\n", " ", *CUES, *CITATIONS, *spaced]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer that gives back any text exactly.

    Every piece has the same score, so the fewest tokens win; characters that no piece has are
    spelled in bytes.
    """
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    unknown = "<unk>"
    special = [PAD, EOS, unknown]
    spelled = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = [(token, 0.0) for token in special]
    vocabulary += [(piece, -1.0) for piece in pieces()]
    vocabulary += [(piece, -20.0) for piece in spelled]
    tokenizer = Tokenizer(
        models.Unigram(vocabulary, unk_id=special.index(unknown), byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=unknown,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
