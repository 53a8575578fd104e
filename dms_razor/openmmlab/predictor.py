# Copyright (c) dms_razor contributors. All rights reserved.
"""MMRazor's predictor of scores, on the choices of a DMS mutator."""
from typing import Any, Dict, List, Optional

import numpy as np
from mmrazor.models.task_modules.predictor import MetricPredictor
from mmrazor.registry import TASK_UTILS
from torch import nn


@TASK_UTILS.register_module()
class DMSMetricPredictor(MetricPredictor):
    """Learns from scored networks to tell the score of another one.

    MMRazor's own class exports a network with its mutables to read what was
    chosen, and names a NumPy type that NumPy 1.24 dropped. Encoding and
    reading are replaced; fitting and the handlers are MMRazor's.

    Args:
        handler_cfg (dict): The regressor, e.g. ``dict(type=
            'mmrazor.CartsHandler', num_trees=100)``, which needs
            scikit-learn.
        search_groups (dict): Unit name to ``[unit]``; the loop gives it.
        train_samples (int): Networks that are evaluated to learn from.
        encoding_type (str): ``'normal'``, a number a unit, or ``'onehot'``,
            a number a choice. Defaults to ``'normal'``: widths are ordered,
            and there are thousands of them.
        score_key (str): Name of the score; the loop gives it.

    Raises:
        ValueError: If a file of samples or a handler's checkpoint is given:
            MMRazor reads both with pickle.
    """

    def __init__(self,
                 handler_cfg: Dict,
                 search_groups: Dict[str, list],
                 train_samples: int = 50,
                 encoding_type: str = 'normal',
                 score_key: str = 'accuracy/top1',
                 handler_ckpt: Optional[str] = None) -> None:
        if handler_ckpt is not None or not isinstance(train_samples, int):
            raise ValueError(
                'predictor_cfg names a file that would be read with pickle '
                f'({handler_ckpt or train_samples!r}), which runs code from '
                'it; give train_samples a number, and resume_from of the '
                'loop the JSON file of an evolution whose samples to use')
        super().__init__(
            handler_cfg,
            search_groups,
            train_samples,
            encoding_type=encoding_type,
            score_key=score_key)

    def model2vector(self, model: Dict[str, int]) -> Dict[str, list]:
        """Number of the choice of each unit, among its choices.

        Args:
            model (dict[str, int]): Unit name to channels or blocks kept.
        """
        vectors: Dict[str, List[int]] = dict(
            normal_vector=[], onehot_vector=[])
        for name, (unit, ) in self.search_groups.items():
            chosen = unit.candidate_choices.index(model[name])
            vectors['normal_vector'].append(chosen)
            onehot = np.zeros(len(unit.candidate_choices), dtype=int)
            onehot[chosen] = 1
            vectors['onehot_vector'].extend(onehot)
        return vectors

    def predict(self, model: nn.Module) -> Dict[str, Any]:
        """The score of the present choices of a model's mutator."""
        vector = self.model2vector(model.mutator.current_choices)
        data = self.preprocess([vector])
        score = float(np.squeeze(self.handler.predict(data)))
        return {self.score_key_list[0]: score}
