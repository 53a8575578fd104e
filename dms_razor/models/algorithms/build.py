# Copyright (c) dms_razor contributors. All rights reserved.
"""Builds the parts of an algorithm from their configs."""
import copy
from typing import Dict, Optional, Union

from mmengine.model import BaseModel
from mmrazor.registry import MODELS
from torch import nn


def build_architecture(
        architecture: Union[BaseModel, Dict],
        data_preprocessor: Union[Dict, nn.Module, None] = None) -> BaseModel:
    """Build the supernet, with the data preprocessor that is meant for it.

    A runner gives the config's top-level ``data_preprocessor`` to the
    algorithm. Built there, without the architecture's ``train_cfg``, it would
    lose batch augmentations such as mixup; so it is handed on.

    Args:
        architecture (dict | BaseModel): The supernet or its config.
        data_preprocessor (dict | nn.Module, optional): What the runner gave.
            An architecture's own one has precedence.

    Returns:
        BaseModel: The supernet.

    Raises:
        TypeError: If ``architecture`` is neither.
    """
    if isinstance(architecture, nn.Module):
        if data_preprocessor is not None:
            if isinstance(data_preprocessor, dict):
                data_preprocessor = MODELS.build(data_preprocessor)
            architecture.data_preprocessor = data_preprocessor
        return architecture
    if not isinstance(architecture, dict):
        raise TypeError(f'the architecture is {architecture!r}; give a model '
                        'or the config of one, e.g. _base_.model')
    architecture = copy.copy(architecture)
    if data_preprocessor is not None and 'cfg_path' not in architecture:
        architecture.setdefault('data_preprocessor', data_preprocessor)
    return MODELS.build(architecture)


def build_part(part: Union[Dict, nn.Module, None],
               default_type: str) -> nn.Module:
    """Build a part of the algorithm; its type may be left out.

    Args:
        part (dict | nn.Module | None): The part or its config.
        default_type (str): The type it has unless the config names one.

    Returns:
        nn.Module: The part.
    """
    if isinstance(part, nn.Module):
        return part
    config: Optional[dict] = copy.copy(part) if part is not None else {}
    config.setdefault('type', default_type)
    # The scope is spelled out: default_scope is often another package's.
    if config['type'] in MODELS.module_dict:
        config['type'] = f'mmrazor.{config["type"]}'
    return MODELS.build(config)
