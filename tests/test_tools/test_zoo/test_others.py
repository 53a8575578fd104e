# Copyright (c) dms_razor contributors. All rights reserved.
"""The short form of the coverage of other packages, where they are there."""
import importlib.util
import json
import runpy
import sys

import pytest
import torch

from tools.zoo.families import FAMILIES, cases
from tools.zoo.record import Record
from tools.zoo.whole_way import prove

#: One of each family that takes a second or two.
SHORT = [('torchvision', 'squeezenet1_1'), ('timm', 'starnet'),
         ('transformers', 'BERT')]

#: What a family needs, where it is not the package of its name.
NEEDS = dict(openmmlab='mmpose')


def needed(family):
    package = NEEDS.get(family, family)
    return pytest.param(
        family,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(package) is None,
            reason=f'{family} is not installed'))


@pytest.mark.parametrize('family', map(needed, FAMILIES))
def test_every_family_has_its_cases(family):
    module = cases(family)
    names = module.names()
    assert len(names) == len(set(names)) > 1
    table = getattr(module, 'MODELS', names)
    assert set(table) == set(names), 'a network without a case, or no network'


@pytest.mark.parametrize('family, name', [
    pytest.param(*row, marks=needed(row[0]).marks, id=row[1]) for row in SHORT
])
def test_short_form(family, name, tmp_path):
    torch.manual_seed(0)
    record = Record(family, name)
    record.save(tmp_path / 'row.json')
    prove(record, cases(family).build(name), tmp_path)
    assert record.status == 'equal', record.problem
    assert max(record.eval_error, record.train_error) < 1e-10
    assert record.share > .9


def test_a_detector_of_torchvision_in_both_modes():
    """Raw outputs of the head, and the losses; or why it cannot run here."""
    module = cases('torchvision')
    case = module.build('ssdlite320_mobilenet_v3_large')
    options = case.tracing()
    with torch.no_grad():
        out = module.raw_outputs(case.model.eval(), options['example_inputs'])
        losses = module.train_loss(case.model.train(),
                                   *options['train_inputs'])
    assert set(out) == {'bbox_regression', 'cls_logits'}
    assert set(losses) == {'bbox_regression', 'classification'}
    if not hasattr(torch.ops.torchvision, 'roi_align'):
        with pytest.raises(module.NotCovered, match='roi_align'):
            module.build('maskrcnn_resnet50_fpn')


def test_the_command(repo, tmp_path, monkeypatch, capsys):
    """Rows that are there are read; the files are those of all of them."""
    names = ('alexnet', 'resnet18')
    for name, status in zip(names, ('equal', 'wrong')):
        row = Record('torchvision', name, status=status, problem=status)
        row.save(tmp_path / 'torchvision' / f'{name}.json')
    monkeypatch.setattr(sys, 'argv', [
        'coverage', *names, '--of', 'torchvision', '--rows',
        str(tmp_path), '--json',
        str(tmp_path / 'all.json'), '--markdown',
        str(tmp_path / 'page.md')
    ])
    with pytest.raises(SystemExit, match='not equal: torchvision resnet18'):
        runpy.run_path(str(repo / 'tools/zoo'), run_name='__main__')
    found = json.loads((tmp_path / 'all.json').read_text())
    assert [row['name'] for row in found['rows']] == list(names)
    assert found['torch'] == torch.__version__
    assert '## torchvision' in (tmp_path / 'page.md').read_text()
    assert 'torchvision resnet18' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [
        'coverage', '--of', 'torchvision', '--merge',
        str(tmp_path), '--markdown',
        str(tmp_path / 'page.md')
    ])
    with pytest.raises(SystemExit, match='resnet18'):
        runpy.run_path(str(repo / 'tools/zoo'), run_name='__main__')
    text = (tmp_path / 'page.md').read_text()
    assert 'have a row, 1 equal, 1 wrong.' in text
    assert 'Without a row: convnext_tiny, densenet121, ' in text
