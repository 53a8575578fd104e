# Copyright (c) dms_razor contributors. All rights reserved.
"""What train.py and test.py share."""
import os

import pytest


@pytest.fixture
def parse(load_tool, config):
    """Parse a command line and load its config."""
    launch = load_tool('_launch')

    def run(*arguments, path=config):
        parser = launch.make_parser('')
        return launch.load_config(
            parser.parse_args([str(path), *map(str, arguments)]))

    return run


@pytest.mark.parametrize('flag', ['--local-rank', '--local_rank'])
def test_both_spellings_of_the_local_rank(parse, monkeypatch, flag):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    parse(f'{flag}=3')
    assert os.environ['LOCAL_RANK'] == '3'
    monkeypatch.setenv('LOCAL_RANK', '1')
    parse(f'{flag}=3')
    assert os.environ['LOCAL_RANK'] == '1', 'the launcher knows better'


def test_work_dir_of_command_line_config_and_name(parse, config):
    assert parse().work_dir == './work_dirs/tiny'
    config.write_text(config.read_text() + "work_dir = 'mine'\n")
    assert parse().work_dir == 'mine'
    assert parse('--work-dir', 'yours').work_dir == 'yours'


def test_options_reach_into_the_config(parse):
    cfg = parse('--cfg-options', 'train_cfg.max_epochs=7',
                'model.head.topk=(1,3)', '--launcher', 'none')
    assert cfg.train_cfg.max_epochs == 7
    assert cfg.model.head.topk == (1, 3)
    assert cfg.launcher == 'none'


@pytest.mark.parametrize('content, message', [
    ('import a, b\n\nsize = 3\n\n\nclass Net:\n    pass\n',
     'net.py is Python code and no config.*from dms_razor import Search'),
    ('import a\n', 'net.py is Python code and no config'),
    (None, 'net.py is a folder and no config: name .*net.py/retrain.py'),
])
def test_what_is_no_config_is_told_in_a_line(parse, config, content, message):
    path = config.with_name('net.py')
    if content is None:
        path.mkdir()
        (path / 'retrain.py').write_text('model = dict()')
    else:
        path.write_text(content)
    with pytest.raises(SystemExit, match=message):
        parse(path=path)
    with pytest.raises(SystemExit, match="there is no config 'no.py', seen"):
        parse(path='no.py')
