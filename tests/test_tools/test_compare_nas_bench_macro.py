# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/compare: the experiment that looks networks up."""
import itertools
import json

import pytest
import torch

from tools.compare.experiments.nas_bench_macro import (Macro, code, filling,
                                                       judge)
from tools.compare.methods.job import cost

#: What each removable block costs, in the order of the code's digits.
BLOCKS = dict(zip((1, 3, 4, 6, 7), (4., 3., 3., 2., 2.)))


@pytest.fixture
def table(tmp_path):
    """All 32 codes; accuracy is 90 and the sum of the digits' places."""
    found = {}
    for digits in itertools.product('02', repeat=5):
        name = list('22222222')
        for place, digit in zip(BLOCKS, digits):
            name[place] = digit
        blocks = [place for place in BLOCKS if name[place] == '2']
        found[''.join(name)] = dict(
            flops=10 + sum(BLOCKS[place] for place in blocks),
            mean_acc=90 +
            sum(dict(zip(BLOCKS, (1, 2, 2, 3, 3)))[p] for p in blocks))
    path = tmp_path / 'table.json'
    path.write_text(json.dumps(found))
    return found, path


def test_the_network_is_the_table_s():
    """105,660,928 stands in the published table, 2,932,586 parameters too."""
    example = torch.zeros(1, 3, 32, 32)
    assert cost(Macro(), example) == 105_660_928
    assert cost(Macro(), example, 'params') == 2_932_586


def test_codes():
    assert code((2, 3, 3)) == '22222222'
    assert code((1, 2, 1)) == '20220200'


def test_regret_by_hand(table):
    """A budget of 16: 4 + 2, 3 + 3, 3 + 2 or 2 + 2 can be added."""
    found, path = table
    layers = {'stem.0': 32, 'last.0': 1280, 'head': 10}
    for stage, block in ((0, 0), (0, 1), (1, 0), (2, 0), (2, 2)):
        layers[f'stages.{stage}.{block}.conv1'] = 1
        layers[f'stages.{stage}.{block}.conv2'] = 1
    judged = judge(dict(layers=layers, amount=16), path)
    # 1 + 3 of the places against the best, 3 + 3.
    assert judged['table top-1'] == 94 and judged['regret'] == 2
    # 4+2 (two ways): 4; 3+3: 4; 3+2 (four ways): 5; 2+2: 6.
    assert sorted(filling(found, 16)) == [94] * 3 + [95] * 4 + [96]
    assert judged['regret of chance'] == 96 - 94.75
