# Copyright (c) dms_razor contributors. All rights reserved.
"""A subnet's network from its folder, or from the config that trains it."""
import copy
from pathlib import Path
from typing import Optional, Tuple, Union

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from ..errors import SubnetError
from ..network import make_inputs, tensors_of
from ..subnet.manifest import Manifest
from ..subnet.weights import load_weights


def subnet_of_folder(
        folder: Union[str, Path],
        config: Optional[str] = None,
        checkpoint: Optional[str] = None) -> Tuple[nn.Module, Tensor]:
    """Build an exported subnet with its weights.

    Args:
        folder (str | Path): Folder of an export, or its subnet.json.
        config (str, optional): Config whose model is the subnet; by default
            the retrain.py of the folder.
        checkpoint (str, optional): Weights, e.g. of its retraining; by
            default the searched ones, the subnet.pth of the folder.

    Returns:
        tuple: The network in eval mode, and an example input (2, C, H, W).

    Raises:
        SubnetError: If something is not there or does not belong together.
    """
    folder = Path(folder)
    if folder.name == 'subnet.json':
        folder = folder.parent
    elif folder.is_file():
        raise SubnetError(f'{folder} is a file; name the folder that a search '
                          'has exported, or the subnet.json in it')
    manifest = Manifest.load(folder / 'subnet.json')
    path = Path(config or folder / 'retrain.py')
    if not path.is_file():
        raise SubnetError(
            f'{path} is not there, so the class of the network is not known; '
            'name a config whose model is this subnet')
    cfg = Config.fromfile(path)
    if not isinstance(cfg.get('model'), dict):
        raise SubnetError(f'{path} has no model; name a whole config')
    kind = cfg.model.get('type')
    kind = str(getattr(kind, '__name__', kind))
    if kind.rpartition('.')[2] != 'DMSSubModel':
        raise SubnetError(
            f'the model of {path} is a {kind} and no DMSSubModel; name a '
            'config whose model is this subnet, like its retrain.py')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    settings = copy.deepcopy(cfg.model)
    settings.update(subnet=str(folder / 'subnet.json'), checkpoint=None)
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(settings)
    load_weights(model, checkpoint or folder / 'subnet.pth')
    model.eval()
    return model, torch.randn(2, *_image_shape(manifest, model))


def _image_shape(manifest: Manifest, model: nn.Module) -> Tuple[int, int, int]:
    """(channels, height, width) that the subnet was searched for."""
    tensors = tensors_of(make_inputs(manifest.inputs, model))
    if len(tensors) != 1 or tensors[0].dim() != 4:
        shapes = [tuple(tensor.shape) for tensor in tensors]
        raise SubnetError(
            f'the subnet takes inputs of shape {shapes} and not one batch of '
            'images; write it with dms_razor.deploy.write_network')
    return tuple(tensors[0].shape[1:])
