# Copyright (c) dms_razor contributors. All rights reserved.
"""What is said of a structure: distances by hand, doubts where they belong."""
import pytest
import torch

from dms_razor.core.account import Account
from dms_razor.core.decision import decision, share_of_cut
from dms_razor.core.layout import Layout, Unit

LAYOUT = Layout([
    Unit('a', 'width', 4),
    Unit('b', 'width', 10),
    Unit('fixed', 'width', 5, least=5),
    Unit('stage', 'depth', 2, least=0)
])


def made(kept, resource_only, even, by_projection=0., steps=200):
    account = Account(LAYOUT)
    account.task = torch.tensor([.1, -.2, 0., .3], dtype=torch.float64)
    account.steps, account.resource_on = steps, torch.tensor(steps // 4)
    return decision(
        LAYOUT, account,
        *(torch.tensor(counts) for counts in (kept, resource_only, even)),
        by_projection)


def test_figures_by_hand():
    told = made((2, 5, 5, 1), (3, 5, 5, 1), (2, 7, 5, 2))
    assert told.from_resource_only == pytest.approx(.25 / 3)
    assert told.from_even == pytest.approx((.2 + .5) / 3)
    assert told.moved_by_task == pytest.approx(.2)
    assert told.moved_by_resource == 0 and told.resource_on == .25
    assert not told.doubts()
    for part in ('200 steps', '0.2', '25%', '8.3%', '23.3%'):
        assert part in told.text(), told.text()
    assert told.to_dict()['steps'] == 200


@pytest.mark.parametrize('change, message', [
    (dict(resource_only=(2, 5, 5, 1)), 'resource alone decided'),
    (dict(by_projection=.4), '40% of the cut was done by the projection'),
    (dict(steps=30), '30 steps are few'),
])
def test_each_doubt(change, message):
    told = made(
        **{
            **dict(
                kept=(2, 5, 5, 1),
                resource_only=(3, 5, 5, 1),
                even=(2, 7, 5, 2)),
            **change
        })
    doubt, = told.doubts()
    assert message in doubt and 'Search longer' in doubt


def test_share_of_a_cut():
    assert share_of_cut(40., 25., 100.) == pytest.approx(
        torch.tensor(40 / 25).log().item() / torch.tensor(4.).log().item())
    assert share_of_cut(20., 25., 100.) > 0  # elements given back count too
    assert share_of_cut(100., 100., 100.) == 0.
