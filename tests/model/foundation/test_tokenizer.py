"""The tokenizer is a CLIPTokenizer that learns frequent words and encodes any text."""

from __future__ import annotations

from pathlib import Path

from model.foundation.tokenizer import learn_tokenizer

TEXTS = ["a photo of a person wearing a red shirt, blue background"] * 3 + ["sad, turned to the left"]


def test_frequent_words_become_one_token() -> None:
    tokens = learn_tokenizer(TEXTS).tokenize("person wearing, background")
    assert tokens == ["person</w>", "wearing</w>", ",</w>", "background</w>"]


def test_any_text_is_tokenised_and_ends_with_the_end_mark() -> None:
    tokenizer = learn_tokenizer(TEXTS)
    for text in ("", "zebra", "Ünïcode 你好 🙂", "x" * 500):
        numbers = tokenizer(text, padding="max_length", truncation=True)["input_ids"]
        assert len(numbers) == 77
        assert tokenizer.eos_token_id in numbers
        assert max(numbers) < len(tokenizer)


def test_it_reads_back_from_its_folder(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    tokenizer = learn_tokenizer(TEXTS)
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert again(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]
    assert again.model_max_length == 77
