# Copyright (c) dms_razor contributors. All rights reserved.
"""A search that is resumed is the one that was begun, or says what changed."""
import copy
import io
import logging

import pytest
import torch
from toy_nets import make_search, plain_data, plain_net, train

BEGUN = dict(
    total_steps=20, warmup_steps=2, width_only_steps=4, target=.6, lr=.1)


def begun(steps=0, **settings):
    search = make_search(plain_net(), **{**BEGUN, **settings})
    optimizer = torch.optim.SGD(search.model.parameters(), lr=.05)
    train(search.attach(optimizer), optimizer, plain_data(), steps)
    return search


@pytest.fixture(scope='module')
def state():
    return begun(5).state_dict()


def leaves(state, path=()):
    for name, value in state.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def same(one, other):
    return all(a == b and x.equal(y)
               for (a, x), (b,
                            y) in zip(leaves(one), leaves(other), strict=True))


def test_it_is_taken_up_and_is_tensors_alone(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    search = begun()
    search.load_state_dict(torch.load(buffer, weights_only=True))
    assert search.step_count == 5 and same(search.state_dict(), state)
    assert all(isinstance(value, torch.Tensor) for _, value in leaves(state))


def by_hand(mask, grad, previous):
    return previous + 1.


@pytest.mark.parametrize('name, value, told', [
    ('target', .5, r'target .* \(60.0%\), now .* \(50.0%\)'),
    ('metric', 'params', "metric 'macs', now 'params'"),
    ('constraints', dict(macs='60%', params='80%'),
     r'constraints None, now macs .* \(60.0%\) and params .* \(80.0%\)'),
    ('total_steps', 30, 'total_steps 20, now 30'),
    ('warmup_steps', 3, 'warmup_steps 2, now 3'),
    ('width_only_steps', 0, 'width_only_steps 4, now 0'),
    ('fall', .5, 'fall .*, now 0.5'),
    ('harden', .5, 'harden .*, now 0.5'),
    ('importance', by_hand, "importance 'taylor', now 'by_hand'"),
    ('decay', .5, 'decay None, now 0.5'),
    ('lr', .2, 'lr 0.1, now 0.2'),
    ('loss_weight', 2., "loss_weight 'auto', now 2.0"),
    ('seed', 3, 'seed None, now 3'),
])
def test_other_settings_are_refused_or_wanted(state, name, value, told,
                                              caplog):
    target = dict(target=None) if name == 'constraints' else {}
    search = begun(**{name: value, **target})
    before = search.state_dict()
    with pytest.raises(
            ValueError,
            match=f'begun with other settings: .*{told}.*with_changes=True'):
        search.load_state_dict(state)
    assert same(search.state_dict(), before)
    with caplog.at_level(logging.WARNING, 'dms_razor'):
        search.load_state_dict(state, with_changes=True)
    assert search.step_count == 5 and f'{name} ' in caplog.text


def test_another_network_is_named_before_its_settings(state):
    other = plain_net()
    del other.blocks[2]
    with pytest.raises(
            ValueError,
            match='another network: it has 5 units, '
            'this network has 4; load .* of this network'):
        search = make_search(other, target=.3)
        search.load_state_dict(state)
    with pytest.raises(
            ValueError,
            match='another network: 1 units of .* not '
            'those of this network, the first: blocks.0.conv1'):
        begun(
            units={
                'blocks.0.conv1': dict(divisor=4)
            }, target=.3).load_state_dict(state)


def test_a_search_without_a_length_only_looks(state):
    """Where a checkpoint is evaluated, nobody has set one."""
    search = make_search(plain_net(), target=.6, lr=.1, total_steps=None)
    search.load_state_dict(state)
    assert search.step_count == 5


def test_newer_formats_are_refused_by_name(state):
    newer = dict(state, version=torch.tensor(3))
    with pytest.raises(ValueError, match='version 3, .* reads versions up to'):
        begun().load_state_dict(newer)


def test_older_formats_are_read(state):
    older = {name: state[name] for name in ('bank', 'step_count', 'projected')}
    search = begun(target=.5)  # they do not say what they were begun with
    search.load_state_dict(older)
    assert search.bank.importance.equal(state['bank']['importance'])


NUMBERS = {
    'negative': lambda value: value - 10,
    'NaN': lambda value: value.double() * float('nan'),
    'huge': lambda value: value.double() + 1e300,
    'cut': lambda value: value.flatten()[:0],
    'meta': lambda value: value.to('meta'),
    'text': lambda value: 'text',
    'nothing': lambda value: None,
    'twice': lambda value: torch.stack([value, value]),
    'endless': lambda value: torch.zeros(1).expand(2**40),
    'complex': lambda value: value * 1j,
}


@pytest.mark.parametrize('how', NUMBERS)
def test_every_number_is_checked_and_all_is_taken_or_nothing(state, how):
    """Each entry of the state in turn; only a sum may be below 0."""
    search = begun(3)
    before, taken = search.state_dict(), []
    for path, value in leaves(state):
        spoilt = copy.deepcopy(state)
        part = spoilt
        for name in path[:-1]:
            part = part[name]
        try:
            part[path[-1]] = NUMBERS[how](value)
        except RuntimeError:  # there is no such tensor
            continue
        try:
            search.load_state_dict(spoilt)
        except ValueError:
            assert same(search.state_dict(), before), path
        else:
            taken.append(path[-1])
            search.load_state_dict(before)
    sums = {'moved_by_task', 'moved_by_resource'}
    assert set(taken) <= dict(
        negative=sums, huge={*sums, 'importance',
                             'step_square'}).get(how, set())


@pytest.mark.parametrize('other', [None, [], 3, dict(bank={}), dict(a=1)])
def test_what_is_no_state(other):
    with pytest.raises(ValueError, match='no state of a search'):
        begun().load_state_dict(other)
