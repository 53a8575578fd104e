# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
from mmengine.config import Config

from dms_razor.openmmlab.retrain import retrain_config

BASE = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'


@pytest.fixture
def search(tmp_path):
    """A search config that inherits a standard one."""
    file = tmp_path / 'search.py'
    file.write_text(f"_base_ = '{BASE}'\nmodel = dict(_delete_=True, "
                    "type='mmrazor.DMS', architecture=_base_.model)")
    return Config.fromfile(file)


def test_base_of_the_search(search):
    config = retrain_config(search)
    assert config.base == BASE and not config.recipe
    assert config.architecture['backbone']['depth'] == 18
    assert type(config.architecture) is dict and BASE in config.text()


def test_another_recipe_and_the_searched_weights(search):
    base = 'mmpretrain::resnet/resnet50_8xb256-rsb-a1-600e_in1k.py'
    config = retrain_config(
        search, base, overrides=dict(work_dir='here'), from_search=True)
    assert config.base == base and config.recipe and config.from_search
    assert config.architecture['backbone']['depth'] == 18
    assert "work_dir = 'here'" in config.text()


def test_architecture_by_path(search):
    search.model.architecture = dict(cfg_path=BASE)
    config = retrain_config(search)
    assert config.base == BASE
    assert config.architecture['type'] == 'ImageClassifier'


def test_no_base_is_a_warning_and_a_wrong_one_an_error():
    cfg = Config(dict(model=dict(architecture=dict(type='ImageClassifier'))))
    assert retrain_config(cfg) is None
    with pytest.raises(ValueError, match='missing.py'):
        retrain_config(cfg, 'mmpretrain::resnet/missing.py')
    cfg.model.architecture = None
    assert retrain_config(cfg) is None
    with pytest.raises(ValueError, match='not given as a config'):
        retrain_config(cfg, BASE)
