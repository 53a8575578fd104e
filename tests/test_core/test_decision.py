# Copyright (c) dms_razor contributors. All rights reserved.
"""What is said of a structure: distances by hand, doubts where they belong."""
from dataclasses import replace

import pytest
import torch

from dms_razor.core import Axis, Cost, Layout, ResourceModel, Term, Unit
from dms_razor.core.bank import Bank
from dms_razor.core.decision import Decision, decide, share_of_cut

SOUND = Decision(200, .2, .3, .25, .1, .3, .02)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def decided(ratios, resource_only):
    """Two widths of 10 that cost the same, at half their cost."""
    layout = Layout([
        Unit('a', 'width', 10),
        Unit('b', 'width', 10),
        Unit('fixed', 'width', 5, least=5)
    ])
    axes = [Axis((Term(1, (1 + i, )), )) for i in range(2)]
    costs = [Cost(f'c{i}', 'Conv2d', 'macs', 1, (i, )) for i in range(2)]
    bank = Bank(layout, lr='auto')
    bank.ratios = vector(*ratios, 0.)
    bank.refresh()
    account = bank.motion.account
    account.task, account.steps = vector(.1, -.2, 0.), 200
    account.resource, account.resource_on = vector(.3, .3,
                                                   9.), torch.tensor(50)
    return decide(bank, ResourceModel(axes, costs, layout), 'macs', 10.,
                  vector(*resource_only, 0.), 0., 'auto')


def test_figures_by_hand():
    told = decided((.8, .2), (.7, .3))
    assert told.from_resource_only == pytest.approx(.1)
    assert told.from_even == pytest.approx(.3)
    assert told.moved_by_task == pytest.approx(.15)
    assert told.moved_by_resource == pytest.approx(.3)  # units that can move
    assert told.resource_on == .25 and told.by_projection == 0.
    assert not told.doubts()
    for part in ('200 steps', '0.15', '25%', '10.0%', '30.0%'):
        assert part in told.text(), told.text()
    assert told.to_dict()['steps'] == 200
    assert told.automatic and told.left == 0


def test_what_projection_did_is_told():
    """From 16 of 20 to 10: log(16/10) of log(2)."""
    told = decided((.2, .2), (.7, .3))
    assert told.by_projection == pytest.approx(.678, abs=1e-3)
    assert told.unreached == pytest.approx(.678, abs=1e-3)
    assert told.from_even == 0.


@pytest.mark.parametrize('change, message', [
    (dict(from_resource_only=.01), 'resource alone decided'),
    (dict(by_projection=.4), '40% of the cut was done by the projection'),
    (dict(steps=30), '30 steps are few'),
])
def test_each_doubt(change, message):
    assert not SOUND.doubts()
    doubt, = replace(SOUND, **change).doubts()
    assert message in doubt and 'Search longer' in doubt
    assert ("'auto'" in doubt) == ('few' not in message)
    doubt, = replace(SOUND, automatic=True, **change).doubts()
    assert message in doubt and 'auto' not in doubt


def test_who_decides_in_a_few_words():
    assert SOUND.decides == 'the task'
    rounded = replace(SOUND, by_projection=.4, unreached=.02)
    assert rounded.decides == ('the task; rounding to whole blocks and '
                               'channels did 40% of the cut')
    short = replace(SOUND, by_projection=.4, unreached=.3)
    assert short.decides.startswith('40% of the cut was done by the proj')
    alone = replace(rounded, from_resource_only=.01)
    assert alone.decides.startswith('The resource alone decided')
    # The even network may be what the resource alone gives.
    same = replace(rounded, from_resource_only=0., from_even=0.)
    assert same.decides.startswith('The resource alone decided')
    # Where nothing is cut, all structures are the same.
    whole = replace(SOUND, from_resource_only=0., from_even=0., cut=False)
    assert whole.decides == 'the task'


def test_rounding_is_no_short_search():
    """It has a remedy of its own."""
    doubt, = replace(SOUND, by_projection=.4, unreached=.02).doubts()
    assert '40% of the cut' in doubt and 'rounding' in doubt
    assert 'Search longer' not in doubt and 'auto' not in doubt
    # 5.49 + 4.51 = 10 of 20 at a target of 10: reached, before any rounding
    assert decided((.451, .549), (.7, .3)).unreached == pytest.approx(0.)


def test_a_search_that_was_not_finished():
    doubt, = replace(SOUND, left=700, by_projection=.9).doubts()
    assert '700 of its steps' in doubt


def test_share_of_a_cut():
    assert share_of_cut(40., 25., 100.) == pytest.approx(
        torch.tensor(40 / 25).log().item() / torch.tensor(4.).log().item())
    assert share_of_cut(20., 25., 100.) > 0  # elements given back count too
    assert share_of_cut(100., 100., 100.) == 0.
