"""Text of sampled tokens, and the character at which each of them begins.

Special tokens stay in the text: a trajectory shows whatever the model wrote, and the
tokens always account for every character. What does not belong here: reading the
text (`steps`), or the end-of-turn token, which sampling removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_BLOCK_TOKENS = 12
_CONTEXT_TOKENS = 4
_MAX_UNSETTLED_TOKENS = 8  # a character has at most 4 bytes; more means that the bytes are no text
_REPLACEMENT = "\ufffd"


def detokenize(tokenizer: Any, token_ids: Sequence[int], context_ids: Sequence[int] = ()) -> tuple[str, np.ndarray]:
    """Return the text that `token_ids` add after `context_ids`, and where each token begins in it.

    A token begins where the text settled by the tokens before it ends. So a token that
    holds only later bytes of a character begins at that character, as the first of its
    tokens does, and tokens without text begin where the next one does, or at the last character.

    Args:
        tokenizer: A transformers tokenizer.
        token_ids: The tokens to decode, shape [T].
        context_ids: Tokens before them, since some tokenizers drop the space that opens a text.

    Returns:
        The text, and start offsets in characters, int32, shape [T], never decreasing.
    """
    context = list(context_ids[-_CONTEXT_TOKENS:])
    ids = context + list(token_ids)
    starts = np.zeros(len(ids), dtype=np.int32)
    pieces: list[str] = []
    num_chars = 0
    begin = len(context)
    while begin < len(ids):
        anchor = max(0, begin - _CONTEXT_TOKENS)
        end = min(begin + _BLOCK_TOKENS, len(ids))
        prefixes = _decode(tokenizer, [ids[anchor:stop] for stop in range(begin, end + 1)])
        while prefixes[-1].endswith(_REPLACEMENT) and end < len(ids):
            if end - begin >= _BLOCK_TOKENS + _MAX_UNSETTLED_TOKENS:
                break
            end += 1
            prefixes += _decode(tokenizer, [ids[anchor:end]])
        known, whole = len(prefixes[0]), prefixes[-1]
        settled = [max(known, _settled_chars(prefix, whole)) for prefix in prefixes[:-1]]
        starts[begin:end] = np.maximum.accumulate(settled) - known + num_chars
        pieces.append(whole[known:])
        num_chars += len(whole) - known
        begin = end
    return "".join(pieces), np.minimum(starts[len(context) :], max(0, num_chars - 1))


def _decode(tokenizer: Any, sequences: list[list[int]]) -> list[str]:
    texts: list[str] = tokenizer.batch_decode(sequences, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return texts


def _settled_chars(prefix: str, whole: str) -> int:
    """Return how many characters of `prefix` later tokens leave as they are.

    Bytes of an unfinished character decode to replacement characters, which the finished one replaces.
    """
    count = len(prefix.rstrip(_REPLACEMENT))
    while count < len(prefix) and whole[count : count + 1] == _REPLACEMENT:
        count += 1
    return count
