# Copyright (c) dms_razor contributors. All rights reserved.
"""Search in Hugging Face's Trainer, or in one that is made of it."""
from pathlib import Path
from typing import Any, Optional

import torch

from ..search import Search
from .distillation import Distillation

STATE = 'search.pt'  # in each of the trainer's checkpoints


class TrainerMixin:
    """In front of a Trainer: its training steps search.

    ::

        class SearchTrainer(TrainerMixin, Trainer):
            pass

        search = Search(model, dict(input_ids=words[:1]), target='80%')
        SearchTrainer(model, settings, search=search, train_dataset=data)

    It goes in front of any trainer whose losses are made by ``compute_loss``.
    A search without a length is given that of the training. The search is part
    of the trainer's checkpoints, ``search.pt``, and goes on where a training
    is resumed. Batches of an accumulated step count alike, each by its mean,
    however many words are in it: the gradient of the masks is divided by what
    the loss was.

    Args:
        args, settings: The trainer's own.
        search (Search, optional): Of the model. Without one, as for
            finetuning what was exported, it is an ordinary training.
        distil (Distillation, optional): Its loss is added in training.
    """

    def __init__(self,
                 *args: Any,
                 search: Optional[Search] = None,
                 distil: Optional[Distillation] = None,
                 **settings: Any) -> None:
        self.search, self.distil = search, distil
        super().__init__(*args, **settings)
        self.model_accepts_loss_kwargs = False  # means: see above

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        """The trainer's optimizer, whose steps move the ratios too."""
        optimizer = super().create_optimizer(*args)
        if self.search is not None:
            self.search.attach(optimizer)
        return optimizer

    def create_scheduler(self, num_training_steps: int, *args: Any,
                         **kwargs: Any) -> Any:
        """The trainer's schedule; the search is as long, if it was left open.
        """
        if self.search is not None and not self.search.total_steps:
            self.search.set_length(num_training_steps)
        return super().create_scheduler(num_training_steps, *args, **kwargs)

    def compute_loss(self,
                     model: Any,
                     inputs: Any,
                     return_outputs: bool = False,
                     **kwargs: Any) -> Any:
        """The trainer's loss; in training with what it is searched by."""
        loss, outputs = super().compute_loss(model, inputs, True, **kwargs)
        if model.training and self.distil is not None:
            logits = outputs['logits'] if isinstance(outputs, dict) \
                else outputs[1]
            loss = loss + self.distil(logits, inputs)
        if model.training and self.search is not None:
            loss = self.search.loss(loss)
        return (loss, outputs) if return_outputs else loss

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.search is not None and self.args.should_save:
            torch.save(self.search.state_dict(), Path(output_dir) / STATE)

    def _load_optimizer_and_scheduler(self, checkpoint: Optional[str]) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.search is None or checkpoint is None:
            return
        path = Path(checkpoint) / STATE
        if not path.is_file():
            raise FileNotFoundError(
                f'{path} is not there, so that the search cannot go on where '
                'the training does: resume from a checkpoint that a trainer '
                'with search= has written')
        self.search.load_state_dict(torch.load(path, weights_only=True))
