# Copyright (c) dms_razor contributors. All rights reserved.
"""Networks that are narrowed and not searched."""
import warnings

import pytest
import torch
from torch.nn import functional as F

from dms_razor.baselines import METHODS, narrow
from dms_razor.core import TargetError
from dms_razor.counting import count_macs
from .helpers import INPUTS, loss, macs, make_search, unit_counts


def options(method):
    if method != 'taylor':
        return {}
    return dict(batches=[INPUTS], loss=loss)


@pytest.mark.parametrize('depth', [False, True])
@pytest.mark.parametrize('scope', ['local', 'global'])
@pytest.mark.parametrize('method', ['uniform', 'random', 'l1', 'taylor'])
def test_the_budget_is_met_and_the_export_is_that_network(
        method, scope, depth, tmp_path):
    search = make_search()
    kept = narrow(search, method, scope=scope, depth=depth, **options(method))
    found = unit_counts(search)
    blocks = found['blocks']
    assert depth or blocks == 2
    assert search.bank.kept().equal(kept) and search.project().equal(kept)
    cost = search.current(hard=True)
    assert .99 * search.target <= cost <= search.target
    if blocks == 2:
        assert cost == macs(found['stem'], found['blocks.0.up'],
                            found['blocks.1.up'], found['mid'])

    with warnings.catch_warnings():
        # Nobody searched, and nobody wanted to.
        warnings.simplefilter('error')
        export = search.export(tmp_path / 'subnet', picture=False)
    assert count_macs(export.model, INPUTS[:1]).total == cost
    search.model.eval(), export.model.eval()
    with search.masks('subnet'), torch.no_grad():
        torch.testing.assert_close(export.model(INPUTS), search.model(INPUTS))


def test_uniform_is_the_even_network():
    """The largest common share, by hand; then single features more."""
    search = make_search()
    narrow(search, 'uniform')
    share = max(s / 10_000 for s in range(10_000)
                if macs(*(max(1, int(s / 10_000 * n + .5))
                          for n in (64, 48, 32, 40))) <= search.target)
    for name, size in (('stem', 64), ('blocks.0.up', 48), ('blocks.1.up', 32),
                       ('mid', 40)):
        more = unit_counts(search)[name] - int(share * size + .5)
        assert 0 <= more <= 1
        stay = search.space.rows(
            search.keep())[search.space.layout.index(name)][0]
        assert stay.tolist() == sorted(stay.tolist(), reverse=True)


def test_local_keeps_the_best_of_the_same_share():
    search, even = make_search(), make_search()
    kept = narrow(search, 'l1')
    assert kept.equal(narrow(even, 'uniform'))
    scores = METHODS.find('l1')(search)
    for row, stay in zip(
            search.space.rows(scores), search.space.rows(search.keep())):
        if not stay.all():
            assert row[stay].min() >= row[~stay].max()


@pytest.mark.parametrize('method', ['l1', 'taylor', 'random'])
def test_global_is_one_threshold(method):
    search = make_search()
    narrow(search, method, scope='global', **options(method))
    # What is left out and scored higher than what stays no longer fits.
    layout, scores = search.space.layout, search.bank.importance
    kept, stay = search.bank.kept(), search.keep()
    lowest = scores[stay & ~layout.depth_elements].min()
    for u in set(layout.unit_of_element[~stay & (scores > lowest)].tolist()):
        more = kept.clone()
        more[u] += 1
        assert search.resource(more, search.bank.hard(more)) > search.target
    shares = search.bank.kept() / search.space.layout.size
    assert shares[:4].max() - shares[:4].min() > .05


def test_a_dear_unit_loses_more_under_one_threshold():
    """Scores of its own method; ranks and counts by hand."""
    search = make_search(target=macs(64, 48, 32, 30))
    layout = search.space.layout

    def mine(search):
        scores = torch.full((layout.E, ), 10.)
        place = layout.slice_of(layout.index('mid'))
        scores[place] = torch.arange(40.) / 10
        return scores

    kept = narrow(search, mine, scope='global')
    assert unit_counts(search, kept) == {
        'stem': 64,
        'blocks.0.up': 48,
        'blocks.1.up': 32,
        'mid': 30,
        'blocks': 2
    }
    stay = search.space.rows(search.keep())[layout.index('mid')][0]
    assert stay.tolist() == 10 * [False] + 30 * [True]


def test_what_is_left_is_filled_best_first():
    """A feature of the stream costs 216 and does not fit, the next do."""
    search = make_search(target=macs(63, 47, 32, 39) + 150)
    layout = search.space.layout

    def mine(search):
        scores = torch.full((layout.E, ), 10.)
        for name, score in (('stem', 3.), ('blocks.0.up', 2.), ('mid', 1.)):
            scores[layout.slice_of(layout.index(name)).start] = score
        return scores

    narrow(search, mine, scope='global')
    found = unit_counts(search)
    assert (found['stem'], found['blocks.0.up'], found['mid']) == (63, 48, 39)


def test_a_block_goes_by_its_score():
    search = make_search(target=macs(64, 48, 32, 40, (True, False)))
    layout = search.space.layout

    def mine(search):
        scores = torch.ones(layout.E)
        scores[layout.slice_of(layout.index('blocks'))] = torch.tensor(
            [2., .5])
        return scores

    narrow(search, mine, scope='global', depth=True)
    keep = search.keep()
    assert keep[layout.slice_of(
        layout.index('blocks'))].tolist() == [True, False]
    assert keep.sum() == layout.E - 1
    narrow(search, mine, scope='global')
    assert unit_counts(search)['blocks'] == 2


def test_a_budget_below_all_blocks():
    search = make_search(target=22)
    with pytest.raises(TargetError, match='with all blocks.*depth=True'):
        narrow(search, 'uniform')
    assert search.bank.updates == 0 and search.bank.hard().all()
    # Still possible with one block less.
    search = make_search(target=macs(1, 1, 1, 1) - 1)
    narrow(search, 'uniform', depth=True)
    assert search.current(hard=True) <= search.target


@pytest.mark.parametrize('name', ['get', 'unnormalised'])
def test_other_selectors_that_rank_by_importance(name):
    kept = narrow(make_search(), 'l1', scope='global')
    search = make_search(selector=name)
    assert narrow(search, 'l1', scope='global').equal(kept)
    assert search.bank.kept().equal(kept)


@pytest.mark.parametrize('settings, message', [
    (dict(method='l2'), 'method of narrowing "l2"'),
    (dict(method='l1', scope='all'), 'scope "all" is not known, use one of '),
    (dict(method='l1', batches=[INPUTS]), "batches= would have no .*'l1'"),
    (dict(method=lambda search: torch.ones(3)), 'scores of shape .3,.; it'),
    (dict(method=lambda search: -torch.ones(search.bank.layout.E)),
     'finite numbers, none negative'),
])
def test_refusals(settings, message):
    search = make_search()
    with pytest.raises(ValueError, match=message):
        narrow(search, **settings)
    assert search.bank.updates == 0


def test_a_selector_with_a_ranking_of_its_own():
    with pytest.raises(ValueError, match='ElementGates selector ranks by'):
        narrow(make_search(selector='mes'), 'l1')


def steps(search, number):
    """Of a loop; how far each ratio has moved."""
    before = search.bank.ratios.clone()
    optimizer = torch.optim.SGD(search.model.parameters(), lr=.05)
    search.attach(optimizer)
    for _ in range(number):
        optimizer.zero_grad()
        out = F.mse_loss(search.model(INPUTS), torch.ones(6, 4))
        search.loss(out).backward()
        optimizer.step()
    return (search.bank.ratios - before).abs()


@pytest.mark.parametrize('loss_weight', [1., 'auto'])
def test_a_search_begins_from_there(loss_weight, tmp_path):
    search = make_search(lr=.005, loss_weight=loss_weight)
    search.loss(loss(search.model, INPUTS))  # and no step
    kept = narrow(search, 'l1', scope='global')
    export = search.export(tmp_path / 'subnet', picture=False)
    assert export.report.decision is None  # no search has decided
    torch.testing.assert_close(search.bank.ratios,
                               1 - kept.double() / search.space.layout.size)
    search.advance(10)  # the target has fallen
    assert 0 < steps(search, 3).max() < .05
    assert search.bank.updates == 4
    assert search.current(hard=True) < 1.05 * search.target


def test_before_the_target_has_fallen_an_exact_search_grows_back():
    search = make_search(lr=.005, loss_weight='auto')
    narrow(search, 'l1', scope='global')
    steps(search, 1)
    assert search.current() > .95 * search.resource.supernet()
