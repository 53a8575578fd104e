# Copyright (c) dms_razor contributors. All rights reserved.
"""The page is written anew, with scores."""
import shutil

import pytest


@pytest.fixture
def run(load_tool, monkeypatch):
    """Runs the tool with arguments."""

    def run(*words):
        monkeypatch.setattr('sys.argv', ['report.py', *map(str, words)])
        load_tool('report').main()

    return run


def test_scores_are_on_the_page(run, repo, tmp_path, capsys):
    for name in ('report.json', 'subnet.json'):
        shutil.copy(repo / 'tests/fixtures/v0_1_0/plain/subnet' / name,
                    tmp_path)
    run(tmp_path, '--score', 'top-1=76.1', '--score', 'a=b=7 %')
    page = tmp_path / 'report.html'
    assert capsys.readouterr().out == f'{page}\n'
    text = page.read_text(encoding='utf-8')
    assert '<td>top-1</td><td>76.1</td>' in text
    assert '<td>a=b</td><td>7 %</td>' in text


@pytest.mark.parametrize('words, message', [
    (['--score', '76.1'], "'76.1' is no score: write NAME=VALUE"),
    (['--score', '=1'], "'=1' is no score"),
    (['--score', 'acc=high'], "'high' is no number; write one"),
    (['--score', 'acc=nan'], "'nan' is no number"),
])
def test_what_is_no_score(run, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit):
        run(tmp_path, *words)
    assert message in capsys.readouterr().err


def test_what_is_no_export(run, tmp_path):
    with pytest.raises(SystemExit, match='has no report.json of an export'):
        run(tmp_path)
