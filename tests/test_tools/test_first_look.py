# Copyright (c) dms_razor contributors. All rights reserved.
"""Signs of life, and data that are not there."""
import io
import time

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS


class Local:
    """A dataset in a folder."""

    def __init__(self, data_root='', ann_file=''):
        pass


class Fetched(Local):
    """One that is downloaded."""

    def __init__(self, data_root='', download=True):
        pass


@pytest.fixture
def look(load_tool):
    return load_tool('_first_look')


@pytest.fixture
def names():
    """Both datasets, registered while a test runs."""
    for kind in (Local, Fetched):
        DATASETS.register_module(module=kind, name=kind.__name__, force=True)
    yield
    for kind in (Local, Fetched):
        DATASETS._module_dict.pop(kind.__name__)


def config(**dataset):
    return Config(dict(train_dataloader=dict(dataset=dataset)))


def test_a_line_while_it_takes_its_time(look):
    out = io.StringIO()
    with look.alive('reading', every=.02, out=out):
        while not out.getvalue():
            time.sleep(.01)
    written = out.getvalue()
    assert written.startswith('reading … 0 s\n')
    time.sleep(.1)
    assert out.getvalue() == written, 'it ends with the body'
    quick = io.StringIO()
    with look.alive('reading', every=60, out=quick):
        pass
    assert not quick.getvalue()


def test_a_missing_folder_is_named(look, names, tmp_path):
    missing = str(tmp_path / 'imagenet')
    for cfg in (config(type='Local', data_root=missing),
                config(
                    type='RepeatDataset',
                    dataset=dict(type='Local', data_root=missing)),
                config(
                    type='ConcatDataset',
                    datasets=[dict(type=Local, data_root=missing)])):
        with pytest.raises(
                FileNotFoundError,
                match='not there: .*imagenet.* --cfg-options'):
            look.refuse_missing_data(cfg)


@pytest.mark.parametrize('dataset', [
    dict(type='Local', data_root=''),
    dict(type='Local', data_root='.'),
    dict(type='Local', data_root='s3://bucket/imagenet'),
    dict(type='Local', data_root='no', backend_args=dict(backend='petrel')),
    dict(type='Fetched', data_root='no'),
    dict(type='NotImportedYet', data_root='no'),
    dict(type='Local'),
])
def test_what_may_be_there_is_left_alone(look, names, dataset):
    look.refuse_missing_data(config(**dataset))


def test_one_that_was_told_not_to_download(look, names):
    with pytest.raises(FileNotFoundError, match='Fetched reads'):
        look.refuse_missing_data(
            config(type='Fetched', data_root='no', download=False))


def test_a_config_without_training(look):
    look.refuse_missing_data(Config(dict(model=dict(type='A'))))
