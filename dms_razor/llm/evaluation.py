# Copyright (c) dms_razor contributors. All rights reserved.
"""Perplexity as papers compute it: a text in pieces of one length.

Each piece is predicted from its own beginning, its first word from nothing
and so not at all. The rolling likelihood of lm-evaluation-harness is another
number; so is one of another length: say which.
"""
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def blocks_of(tokenizer: Any, text: str, length: int) -> Tensor:
    """A text as words, int64 ``[N, length]``; what is left over goes.

    Args:
        tokenizer: Of Hugging Face.
        text (str): The text.
        length (int): Words of a piece.

    Raises:
        ValueError: The text has no two words, or no whole piece.
    """
    words = tokenizer(text, return_tensors='pt').input_ids[0]
    whole = len(words) // length * length
    if length < 2 or not whole:
        raise ValueError(f'a text of {len(words)} words has no piece of '
                         f'length={length}: give a longer text, or a length '
                         'from 2 on that it has')
    return words[:whole].view(-1, length)


@torch.no_grad()
def perplexity(model: nn.Module,
               blocks: Tensor,
               batch_size: int = 32) -> float:
    """exp of the mean loss of the next word, over all pieces alike.

    Args:
        model (nn.Module): A causal language model of Hugging Face; run in
            eval mode, and as it was afterwards.
        blocks (Tensor): Words, int64 ``[N, length]``.
        batch_size (int): Pieces at a time.
    """
    device = next(model.parameters()).device
    training, total = model.training, 0.
    model.eval()
    try:
        for batch in blocks.split(batch_size):
            batch = batch.to(device)
            logits = model(batch, use_cache=False).logits[:, :-1].float()
            total += F.cross_entropy(
                logits.flatten(0, 1), batch[:, 1:].flatten(),
                reduction='sum').item()
    finally:
        model.train(training)
    return math.exp(total / (blocks.shape[0] * (blocks.shape[1] - 1)))
