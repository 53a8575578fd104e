# Copyright (c) dms_razor contributors. All rights reserved.
"""Perplexity against a sum over words, one by one."""
import math
from types import SimpleNamespace

import pytest
import torch
from language_nets import Decoder
from torch import nn

from dms_razor.llm import blocks_of, perplexity


class Model(nn.Module):
    """What Hugging Face's take and return; dropout would show train mode."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.drop = Decoder(), nn.Dropout(.5)

    def forward(self, words, use_cache=True):
        assert not use_cache
        return SimpleNamespace(logits=self.drop(self.net(words)))


def tokenizer(text, return_tensors):
    words = torch.tensor([[ord(letter) % 31 for letter in text]])
    return SimpleNamespace(input_ids=words)


def test_a_text_in_pieces():
    blocks = blocks_of(tokenizer, 'abcdefgh', 3)
    assert blocks.tolist() == [[ord(x) % 31 for x in piece]
                               for piece in ('abc', 'def')]
    for text, length in (('ab', 3), ('abc', 1)):
        with pytest.raises(ValueError, match='has no piece of'):
            blocks_of(tokenizer, text, length)


def test_perplexity_word_by_word():
    model, words = Model().train(), torch.randint(0, 31, (5, 6))
    found = perplexity(model, words, batch_size=2)
    assert model.training and model.drop.training
    model.eval()
    total = 0.
    for row in words:
        for place in range(1, 6):
            with torch.no_grad():
                scores = model.net(row[None, :place])[0, -1]
            total -= float(scores.log_softmax(-1)[row[place]])
    assert found == pytest.approx(math.exp(total / 25), rel=1e-4)
