# Copyright (c) dms_razor contributors. All rights reserved.
"""The table names every backbone that mmpretrain has."""
import pytest

from tools.zoo.backbones import (CASES, NO_NETWORK, PRETRAINING,
                                 backbone_names, build_case,
                                 registered_backbones)


def test_every_backbone_of_mmpretrain_is_in_the_table():
    """By the registry, not by the list that the package exports alone."""
    from mmpretrain.models import backbones
    from mmpretrain.models.backbones.base_backbone import BaseBackbone
    from mmpretrain.registry import MODELS
    derived = {
        name
        for name, cls in MODELS.module_dict.items()
        if isinstance(cls, type) and issubclass(cls, BaseBackbone)
        and cls.__module__.startswith('mmpretrain.')
    }
    assert {'MAEViT', 'MoCoV3ViT', 'ResNet'} <= derived
    assert derived | set(backbones.__all__) <= set(backbone_names())
    assert set(CASES) | set(NO_NETWORK) == set(backbone_names())
    assert not set(CASES) & set(NO_NETWORK)
    assert registered_backbones() == list(CASES)
    with pytest.raises(KeyError, match='zoo/backbones'):
        build_case('CSPNet')


def test_pretraining_forms_are_what_their_reason_says():
    from mmpretrain.registry import MODELS
    for name, base in PRETRAINING.items():
        assert issubclass(MODELS.get(name), MODELS.get(base))
        assert base in CASES and base in NO_NETWORK[name]


def test_a_new_backbone_comes_last(monkeypatch):
    """Until the table has a case for it, its row says so."""
    from mmpretrain.models.backbones.base_backbone import BaseBackbone
    from mmpretrain.registry import MODELS
    new = type('ANet', (BaseBackbone, ), {})
    monkeypatch.setitem(MODELS.module_dict, 'ANet', new)
    assert 'ANet' not in registered_backbones(), 'not a class of mmpretrain'
    new.__module__ = 'mmpretrain.models.selfsup.new'
    assert registered_backbones()[-1] == 'ANet'
