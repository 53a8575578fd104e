# Copyright (c) dms_razor contributors. All rights reserved.
"""``dms-razor``: one command in front of the tools."""
import runpy
import sys

import pytest

from dms_razor import __version__, command


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Commands with tools that say how they were called."""
    for name in ('_launch', 'show_space', 'train', 'export', 'export_subnet'):
        (tmp_path / f'{name}.py').write_text(
            'import sys\nprint(__name__, __file__.split("/")[-1], '
            'sys.argv[1:])\nsys.exit(3)')
    (tmp_path / 'compare').mkdir()
    (tmp_path / 'compare' / '__main__.py').write_text('print("compare")')
    monkeypatch.setattr(command, 'tools_folder', lambda: tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setattr(sys, 'argv', ['dms-razor'])
    return command.main


@pytest.mark.parametrize('words, script', [
    (['space', 'a.py', '--json', '-'], 'show_space.py'),
    (['search', 'a.py'], 'train.py'),
    (['export', 'subnet', '--format', 'pt2'], 'export.py'),
    (['export', 'a.py', 'epoch_1.pth'], 'export_subnet.py'),
])
def test_a_command_is_its_tool(run, capsys, words, script):
    with pytest.raises(SystemExit) as end:
        run(words)
    assert end.value.code == 3
    assert capsys.readouterr().out == f'__main__ {script} {words[1:]!r}\n'


def test_help_has_the_name_that_was_typed(run, tmp_path, capsys):
    (tmp_path / 'train.py'
     ).write_text('import argparse\nargparse.ArgumentParser().parse_args()')
    main = sys.modules['__main__']
    with pytest.raises(SystemExit):
        run(['search', '--help'])
    assert 'usage: dms-razor search [-h]' in capsys.readouterr().out
    assert sys.modules['__main__'] is main


def test_the_package_runs_as_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['dms_razor', '--version'])
    runpy.run_module('dms_razor', run_name='__main__')
    assert capsys.readouterr().out == f'dms_razor {__version__}\n'


def test_a_tool_that_is_a_folder(run, capsys):
    run(['compare'])
    assert capsys.readouterr().out == 'compare\n'


@pytest.mark.parametrize('words', [[], ['--help'], ['-h'], ['help']])
def test_help_teaches(capsys, words):
    command.main(words)
    text = capsys.readouterr().out
    for name, entry in command.COMMANDS.items():
        assert (f'\n  {name:<12}' in text) == (
            command.find_script(entry.tool) is not None)
    assert 'look before you train' in text
    assert max(map(len, text.splitlines())) < 80


def test_every_command_but_one_is_here():
    """The last one belongs to budgets of time, and is told when it is."""
    missing = [
        name for name, entry in command.COMMANDS.items()
        if command.find_script(entry.tool) is None
    ]
    assert set(missing) <= {'measure'}


def test_version(capsys):
    command.main(['--version'])
    assert capsys.readouterr().out == f'dms_razor {__version__}\n'


@pytest.mark.parametrize('words, message', [
    (['searhc'], 'no command "searhc"; did you mean "search"'),
    (['xyz'], 'no command "xyz".* it has space, search'),
    (['test'], 'test needs the tool "test", .*pip install'),
])
def test_what_is_not_there(run, words, message):
    with pytest.raises(SystemExit, match=message):
        run(words)


def test_without_tools(monkeypatch, tmp_path):
    monkeypatch.setattr(command, 'PACKAGE', tmp_path)
    assert command.tools_folder() is None
    (tmp_path / '.mim' / 'tools').mkdir(parents=True)
    (tmp_path / '.mim' / 'tools' / '_launch.py').write_text('')
    assert command.tools_folder() == tmp_path / '.mim' / 'tools'


def test_without_openmmlab_one_line_says_what_to_install(run, tmp_path):
    (tmp_path / 'train.py').write_text(
        'from dms_razor.errors import MissingPackageError\n'
        'raise MissingPackageError("needs b: pip install b")')
    with pytest.raises(SystemExit) as ended:
        run(['search', 'a.py'])
    assert ended.value.code == 'dms-razor search: needs b: pip install b'
