# Copyright (c) dms_razor contributors. All rights reserved.
"""MMRazor's own supernets, to be searched by DMS.

Autoformer and OFA's MobileNetV3 are built of dynamic layers that look up
their present width in mutables. A search by DMS needs none of this: its
masks act on plain layers. :func:`DMSStaticSupernet` builds such a supernet
and turns it into its largest network, of plain layers with the same weights::

    architecture=dict(type='DMSStaticSupernet', cfg=_base_.supernet)

The published space is then given by ``units`` with ``choices``; see
configs/autoformer and configs/ofa.
"""
import copy
from typing import Any, Dict, List, Optional, Tuple

from mmengine.registry import MODELS, Registry
from torch import nn


# In mmengine's root registry, so that a config finds it under any scope.
@MODELS.register_module()
def DMSStaticSupernet(cfg: dict,
                      data_preprocessor: Optional[dict] = None) -> nn.Module:
    """Build one of MMRazor's supernets as its largest plain network.

    Args:
        cfg (dict): Config of the searchable network, e.g.
            ``SearchableImageClassifier``. MMRazor's own configs name
            MMPretrain ``mmcls``; both names are understood.
        data_preprocessor (dict, optional): Handed on to the model; the
            runner passes it when this is a config's top-level ``model``.

    Returns:
        nn.Module: The largest network of the space. It has no mutables.

    Raises:
        TypeError: If ``cfg`` is not a config dict with a ``type``.
        ValueError: If the network has no mutables.
    """
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise TypeError('DMSStaticSupernet needs the config of a searchable '
                        f"network, a dict with a 'type'; got {cfg!r}.")
    cfg = _renamed(copy.deepcopy(cfg))
    if data_preprocessor is not None:
        cfg['data_preprocessor'] = _renamed(data_preprocessor)
    with MODELS.switch_scope_and_registry('mmrazor') as registry:
        if _is_classifier(cfg['type'], registry):
            # MMPretrain's default, which it would look for in MMRazor's scope
            preprocessor = cfg.get('data_preprocessor') or {}
            if isinstance(preprocessor, dict):
                preprocessor.setdefault('type',
                                        'mmpretrain.ClsDataPreprocessor')
            cfg['data_preprocessor'] = preprocessor
        return largest_network(registry.build(cfg))


def _is_classifier(kind: Any, registry: Registry) -> bool:
    """Whether a config's ``type`` is one of MMPretrain's classifiers."""
    from mmpretrain.models import ImageClassifier
    cls = registry.get(kind) if isinstance(kind, str) else kind
    return isinstance(cls, type) and issubclass(cls, ImageClassifier)


def largest_network(model: nn.Module) -> nn.Module:
    """The largest network of a supernet, with the supernet's weights.

    Args:
        model (nn.Module): A network of MMRazor's dynamic layers; it is used
            up.

    Returns:
        nn.Module: The same classes with plain layers inside.

    Raises:
        ValueError: If the network has no mutables.
    """
    from mmrazor.models.mutables import BaseMutable
    from mmrazor.models.mutators import NasMutator
    from mmrazor.structures.subnet import export_fix_subnet
    mutator = NasMutator()
    mutator.prepare_from_supernet(model)
    if not mutator.search_groups:
        raise ValueError(
            f'{type(model).__name__} has no mutables: it is no supernet of '
            'MMRazor. Use its config as the architecture itself.')
    mutator.set_choices(mutator.sample_choices(kind='max'))
    training, lists = model.training, _lists(model)
    _, static = export_fix_subnet(model, slice_weight=True)
    for module in static.modules():
        module.training = training
        for name, child in list(module.named_children()):
            if isinstance(child, BaseMutable) and not _is_read(module, name):
                delattr(module, name)
    modules = dict(static.named_modules())
    for (path, name), members in lists.items():
        if set(members) <= set(modules):  # else they were mutables
            setattr(modules[path], name, [modules[m] for m in members])
    _traceable(static)
    return static


def _lists(model: nn.Module) -> Dict[Tuple[str, str], List[str]]:
    """Plain lists of modules: (owner, attribute) -> paths of the members.

    A backbone that runs such a list would go on running dynamic layers,
    since only registered modules are replaced.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    found = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, list) and value and all(
                    id(item) in paths for item in value):
                found[path, name] = [paths[id(item)] for item in value]
    return found


def _is_read(module: nn.Module, name: str) -> bool:
    """Whether a backbone's forward still asks for this number."""
    return name == 'mutable_embed_dims' and hasattr(module, 'cls_token')


def _traceable(model: nn.Module) -> None:
    """Give attention with relative positions the form that traces."""
    from .relative_attention import MultiheadAttention, RelativeAttention
    for module in model.modules():
        if type(module) is MultiheadAttention:
            module.__class__ = RelativeAttention


def _renamed(value: Any) -> Any:
    """``mmcls`` is called ``mmpretrain`` today, in types and scopes."""
    if isinstance(value, dict):
        return {key: _renamed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_renamed(item) for item in value)
    if isinstance(value, str) and (value == 'mmcls'
                                   or value.startswith('mmcls.')):
        return 'mmpretrain' + value[len('mmcls'):]
    return value
