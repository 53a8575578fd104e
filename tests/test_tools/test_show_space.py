# Copyright (c) dms_razor contributors. All rights reserved.
import json
from functools import partial

import pytest
from in_process import call

SEARCH = '''
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['dms_razor.openmmlab'])
model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=_base_.model,
    target={target},
    mutator=dict({mutator}))
'''


@pytest.fixture
def config(tmp_path):

    def write(target="'50%'", mutator=''):
        path = tmp_path / 'search.py'
        path.write_text(
            SEARCH.replace('{target}',
                           str(target)).replace('{mutator}', mutator))
        return path

    return write


@pytest.fixture
def show(load_tool, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return partial(call, load_tool, monkeypatch, capsys, 'show_space')


def test_resnet50(show, config):
    """Paper, table 2: 41 ratios and 11,468 elements; 4.089 G MACs."""
    result = show(config(), '--json', '-')
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report['ratios'] == 41 and report['elements'] == 11468
    assert report['width'] == dict(units=37, elements=11456)
    assert report['depth'] == dict(units=4, elements=12)
    assert report['macs']['supernet'] == 4_089_184_256
    assert report['params']['supernet'] == 25_557_032
    assert report['macs']['target'] == report['macs']['supernet'] / 2
    assert report['params']['target'] is None
    assert 0 < report['macs']['minimum'] < .01 * report['macs']['supernet']
    assert [item['module'] for item in report['full_width']] == ['head.fc']
    # Each step meets the target by itself, whatever their number.
    assert report['reachable'] and report['steps'] is None


def test_table_and_file(show, config, tmp_path):
    result = show(config('4.1e8'), '--json', 'space.json')
    assert 'reachable  yes' in result.stdout
    report = json.loads((tmp_path / 'space.json').read_text())
    assert report['macs']['target'] == 4.1e8


def test_a_plain_config_without_target(show):
    from mmengine.utils import get_installed_path
    path = (f'{get_installed_path("mmpretrain")}/.mim/configs/resnet/'
            'resnet18_8xb16_cifar10.py')
    result = show(path)
    assert result.returncode == 0, result.stderr
    assert 'target' not in result.stdout and '4 units' in result.stdout


def test_a_target_out_of_reach(show, config):
    result = show(config("'1K'"))
    assert result.returncode == 1
    assert 'cannot be reached' in result.stdout  # with the whole table
    assert '11,468' in result.stdout


@pytest.mark.parametrize('text, message', [
    ('model = dict(', 'never closed'),
    ('name = 1', 'has no model'),
    ("model = dict(type='Nobody')", 'Nobody is not in the'),
    ("_base_ = 'nowhere.py'", 'nowhere.py'),
])
def test_one_message_for_a_broken_config(show, tmp_path, text, message):
    (tmp_path / 'broken.py').write_text(text)
    result = show('broken.py', '--json', 'space.json')
    assert result.returncode == 1
    assert message in result.stderr and 'Traceback' not in result.stderr
    assert not (tmp_path / 'space.json').exists()


@pytest.mark.parametrize('mutator, message', [
    ("units={'layer9.*': dict(fixed=True)}", 'layer9'),
    ('width=False, depth=False', 'othing'),
])
def test_one_message_for_what_cannot_be_traced(show, config, mutator, message):
    result = show(config(mutator=mutator), '--json', 'space.json')
    assert result.returncode == 1
    assert message in result.stderr and 'Traceback' not in result.stderr
