# Copyright (c) dms_razor contributors. All rights reserved.
"""The original as the teacher, in search and finetuning (paper, section 4.5).
"""
from contextlib import nullcontext
from typing import Any, Mapping, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import check_number, refuse_beside
from ..search import Search


class Distillation:
    """Loss towards the logits of the original network.

    KL divergence of the next word's distributions, both at a temperature τ,
    times τ² (Hinton et al. 2015), as the mean over words that count::

        distil = Distillation(search, teacher)
        out = model(**batch)
        loss = search.loss(out.loss + distil(out.logits, batch))

    Without a teacher the searched network is its own, with its masks off;
    that needs weights that rest (``requires_grad_(False)``), and saves the
    memory of a second copy. Beneath LoRA they do, and the adapters are off
    too then.

    Args:
        search (Search, optional): The search; not needed with a teacher.
        teacher (nn.Module, optional): The original; set to eval mode.
        adapters (PeftModel, optional): What ``get_peft_model`` made of the
            network, if adapters are all that trains.
        temperature (float): τ. Defaults to 2.

    Raises:
        ValueError: There is neither a teacher nor a search whose weights
            rest, or the temperature is out of range.
    """

    def __init__(self,
                 search: Optional[Search] = None,
                 teacher: Optional[nn.Module] = None,
                 temperature: float = 2.,
                 adapters: Optional[nn.Module] = None) -> None:
        check_number('temperature', temperature, 0, above=True)
        refuse_beside('teacher', teacher, adapters=adapters)
        self.search, self.temperature = search, temperature
        self.adapters = adapters
        self.teacher = None if teacher is None else teacher.eval()
        if teacher is not None:
            return
        if search is None:
            raise ValueError('a distillation needs a teacher, or the search '
                             'of a network that is its own teacher')
        moving = [
            name for name, parameter in search.model.named_parameters()
            if parameter.requires_grad and (
                adapters is None or 'lora_' not in name)
        ]
        if moving:
            raise ValueError(
                f'the weights of this network are trained ({moving[0]} and '
                f'{len(moving) - 1} more), so that it does not stay its own '
                'teacher: give teacher=, a copy of the original, or, if all '
                'of them are of LoRA, adapters=, the model of get_peft_model')

    @torch.no_grad()
    def logits(self, batch: Mapping[str, Any]) -> Tensor:
        """The teacher's logits for a batch, ``[B, T, words]``."""
        given = {key: value for key, value in batch.items() if key != 'labels'}
        if self.teacher is not None:
            return self.teacher(**given).logits
        model = self.search.model
        flags = [(module, module.training) for module in model.modules()]
        try:
            for module, _ in flags:
                module.training = False
            off = nullcontext() if self.adapters is None else \
                self.adapters.disable_adapter()
            with self.search.masks('off'), off:
                return model(**given).logits
        finally:
            for module, flag in flags:
                module.training = flag

    def __call__(self, logits: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The loss of a batch.

        Args:
            logits (Tensor): The student's, ``[B, T, words]``.
            batch (Mapping): What the student was given; where it has
                ``labels``, words that they leave out (-100) do not count,
                else those of an ``attention_mask`` of 0.

        Returns:
            Tensor: A scalar.
        """
        heat = self.temperature
        expected = F.log_softmax(self.logits(batch).float() / heat, -1)
        found = F.log_softmax(logits.float() / heat, -1)
        each = (expected.exp() * (expected - found)).sum(-1)
        if batch.get('labels') is not None:
            # The word at t is predicted at t - 1.
            counts = F.pad(batch['labels'][:, 1:] != -100, (0, 1))
        elif batch.get('attention_mask') is not None:
            counts = batch['attention_mask'].bool()
        else:
            counts = torch.ones_like(each, dtype=torch.bool)
        return heat**2 * each[counts].mean()
