# Copyright (c) dms_razor contributors. All rights reserved.
"""``DMSSubModel``: a searched subnet in any OpenMMLab config.

It is a registered function and not a class around the network: what it
returns *is* the network, of its own class, so that inferencers, EMA, hooks
and ``isinstance`` checks see nothing unusual. With ``part='backbone'`` it is
the backbone of a detector.
"""
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Union

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModule
from mmengine.registry import MODELS, init_default_scope
from mmrazor.registry import MODELS as RAZOR_MODELS
from torch import Tensor, nn

from ..errors import SubnetError
from ..network import make_inputs, tensors_of
from ..subnet.build import build_subnet
from ..subnet.manifest import Manifest
from ..subnet.weights import load_weights, read_weights, student_prefix
from .algorithm import with_preprocessor
from .retrain_recipe import without_pretrained


# In mmengine's root registry a config finds it under any default scope; in
# MMRazor's it has its name among MMRazor's models.
@RAZOR_MODELS.register_module()
@MODELS.register_module()
def DMSSubModel(cfg: Union[Dict, ConfigDict],
                subnet: str,
                checkpoint: Optional[str] = None,
                part: str = '',
                data_preprocessor: Union[None, Dict, nn.Module] = None,
                **kwargs: Any) -> nn.Module:
    """Build a subnet from the standard config of its supernet.

    Nothing is traced. The supernet is built from ``cfg``, without pretrained
    weights, compared with the manifest, shrunk, and compared again: every
    shape, the parameters and the MACs.

    Without ``checkpoint`` the subnet starts from scratch: its
    ``init_weights``, which a runner calls, works on the shrunken layers as it
    does on those of any network. With ``checkpoint``, ``init_weights`` leaves
    the loaded weights as they are.

    Args:
        cfg (dict): Model config of the supernet, e.g. the standard config's
            ``model``, or that of its part.
        subnet (str): The subnet.json of an export.
        checkpoint (str, optional): Weights of the subnet: its subnet.pth or
            a checkpoint of its training, also of that by a ``DMSDistill``.
            Not those of the supernet.
        part (str): The part of the subnet that ``cfg`` describes, e.g.
            ``'backbone'``; empty for all of it.
        data_preprocessor (dict | nn.Module, optional): Handed on to the
            network unless ``cfg`` has one; the runner passes the config's
            top-level one. So batch augmentations of ``train_cfg`` work.
        **kwargs: Further arguments are put into ``cfg``, e.g. the
            ``init_cfg`` or ``test_cfg`` that a framework adds to a model. An
            empty ``backbone`` is not; a retrain.py has it for mmdet's
            ``init_detector``, which looks into it.

    Returns:
        nn.Module: The plain subnet, of the class that ``cfg`` names.

    Raises:
        TypeError: ``cfg`` is no config with a type.
        SubnetError: Config, manifest and checkpoint do not belong together.
    """
    config = with_preprocessor(
        without_pretrained(cfg), data_preprocessor, 'DMSSubModel')
    if not kwargs.get('backbone', True):
        del kwargs['backbone']
    model = MODELS.build(ConfigDict(config, **kwargs))
    build_subnet(model, subnet, weights=checkpoint, part=part)
    if checkpoint is not None and isinstance(model, BaseModule):
        # init_weights then ends by loading these weights; the overrides of
        # it that set some layers to zero know this kind and stop before
        prefix = student_prefix(read_weights(checkpoint)) + part
        model.init_cfg = dict(
            type='Pretrained',
            checkpoint=checkpoint,
            prefix=f'{prefix.rstrip(".")}.' if prefix else None)
    return model


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
    if not path.is_file() and config is None:
        raise SubnetError(
            f'{path} is not there: this subnet is of a search in Python, and '
            'the class of its network is not known here. Write the file in '
            'Python: dms_razor.subnet.write_portable(model, images, '
            "'subnet.onnx'), with the model of search.export or build_subnet;"
            ' or name a config whose model is this subnet by --config')
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
    settings = with_preprocessor(cfg.model, cfg.get('data_preprocessor'))
    settings.update(subnet=str(folder / 'subnet.json'), checkpoint=None)
    model = MODELS.build(settings)
    load_weights(model, checkpoint or folder / 'subnet.pth')
    model.eval()
    tensors = tensors_of(make_inputs(manifest.inputs, model))
    if len(tensors) != 1 or tensors[0].dim() != 4:
        raise SubnetError(
            'the subnet takes inputs of shape '
            f'{[tuple(tensor.shape) for tensor in tensors]} and not one batch '
            'of images; write it with dms_razor.deploy.write_network')
    return model, torch.randn(2, *tensors[0].shape[1:])
