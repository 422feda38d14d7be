"""A CLIPTokenizer with a small vocabulary learned from the prompts; unknown text is split into bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
MAX_LENGTH = 77


def learn_tokenizer(texts: Iterable[str], merges: int = 400, length: int = MAX_LENGTH) -> Any:
    """Return a CLIPTokenizer of 512 byte symbols, at most `merges` learned pairs and two special tokens.

    Texts have at most `length` tokens.

    Pairs are learned by byte-pair encoding inside words, the most frequent first, ties in alphabetical order. The last
    symbol of a word has CLIP's end-of-word mark.
    """
    from collections import Counter

    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    counts = Counter(word for text in texts for word in re.sub(r"([,:;])", r" \1 ", text.lower()).split())
    words = {word: ([*word[:-1], f"{word[-1]}</w>"], count) for word, count in counts.items()}
    learned: list[tuple[str, str]] = []
    while len(learned) < merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, count in words.values():
            for pair in pairwise(symbols):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        learned.append(best)
        words = {word: (_merged(symbols, best), count) for word, (symbols, count) in words.items()}
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in learned), *_SPECIAL]
    return CLIPTokenizer(
        vocab={symbol: number for number, symbol in enumerate(dict.fromkeys(vocabulary))},
        merges=learned,
        model_max_length=length,
    )


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for symbol in symbols:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined
