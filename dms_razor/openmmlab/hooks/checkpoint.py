# Copyright (c) dms_razor contributors. All rights reserved.
"""A subnet runs with its own weights, or not at all."""
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmrazor.registry import HOOKS as RAZOR_HOOKS

from ...subnet.weights import matching_weights, read_weights


# In mmengine's root registry a config finds it under any default scope.
@RAZOR_HOOKS.register_module()
@HOOKS.register_module()
class SubnetCheckpointHook(Hook):
    """Refuses a checkpoint that is not of the subnet which is run.

    mmengine loads what fits and logs the rest as a warning: the checkpoint
    of the search, or of another subnet, would be tested as this one and give
    the accuracy of random weights. ``tools/train.py`` and ``tools/test.py``
    add this hook to every config whose model is a ``DMSSubModel`` or a
    ``DMSDistill``. Of the checkpoint of a distillation a ``DMSSubModel``
    takes the student's weights.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes before anything is loaded.

        Raises:
            SubnetError: They are not those of the network.
        """
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        weights = matching_weights(
            model, checkpoint, origin=f'Checkpoint {runner._load_from!r}')
        if weights.keys() != read_weights(checkpoint).keys():
            checkpoint['state_dict'] = weights
