# Copyright (c) dms_razor contributors. All rights reserved.
"""A supernet whose subnets work without training of their own."""
from typing import Any, Dict, List, Optional, Sequence

from mmrazor.registry import MODELS
from torch import Tensor

from .algorithm import DMS


@MODELS.register_module()
class DMSOneShot(DMS):
    """Trains another network of the space in every step.

    What an evolution needs before it (OFA, SPOS, slimmable networks): the
    same weights serve every subnet, so that one can be scored by validating
    it. Nothing is searched and no ratio is learnt: config without DMSHook.
    Which elements a count keeps is drawn by the mutator's ``seed`` and stays;
    the evolution has to have the same one. Validation runs the whole
    supernet.

    Args:
        samples (Sequence[str]): Kinds of networks that a step trains, see
            :meth:`DMSMutator.sample_choices`; the loss is their mean.
            Defaults to the whole network and a random one.
        **kwargs: Those of :class:`DMS`; ``input_shape`` is needed, and
            ``search`` means nothing here.

    Raises:
        ValueError: If ``input_shape`` or samples are missing.
    """

    def __init__(self,
                 *args: Any,
                 samples: Sequence[str] = ('max', 'random'),
                 target: Any = 1.,
                 **kwargs: Any) -> None:
        super().__init__(*args, target=target, **kwargs)
        if self.search is None:
            raise ValueError('DMSOneShot needs input_shape, the shape of an '
                             'image, e.g. input_shape=(3, 224, 224)')
        if not samples:
            raise ValueError('samples of DMSOneShot is empty, so that a step '
                             "would train nothing; name 'random'")
        for kind in samples:
            self.mutator.sample_choices(kind)  # says which kinds there are
        self.samples = tuple(samples)

    def loss(self,
             inputs: Tensor,
             data_samples: Optional[List[Any]] = None) -> Dict[str, Tensor]:
        """The mean losses of the networks of one step."""
        totals: Dict[str, Any] = {}
        for kind in self.samples:
            self.mutator.set_choices(self.mutator.sample_choices(kind))
            losses = self.architecture(inputs, data_samples, mode='loss')
            for name, value in losses.items():
                values = value if isinstance(value, (list, tuple)) else [value]
                totals.setdefault(name, []).extend(values)
        return {name: sum(values) / len(self.samples)
                for name, values in totals.items()}  # yapf: disable

    def forward(self,
                inputs: Tensor,
                data_samples: Optional[List[Any]] = None,
                mode: str = 'tensor') -> Any:
        """Losses of the step's networks, or what the supernet gives."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        with self.search.masks('off'):
            return self.architecture(inputs, data_samples, mode=mode)
