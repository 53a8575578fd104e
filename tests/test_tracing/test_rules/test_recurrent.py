# Copyright (c) dms_razor contributors. All rights reserved.
"""The hidden state of recurrent layers: masks, cuts and counts."""
import pytest
import torch
from equality import assert_counts, difference, keeps, randomise
from torch import nn

from dms_razor.network import named_tensors
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace

STEPS = torch.randn(
    1, 5, 3, generator=torch.Generator().manual_seed(0)).double()


class Net(nn.Module):
    """Points of time ``[B, T, 3]`` to scores ``[B, 4]``."""

    def __init__(self, layer, width, packed=False, state=False):
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.layer, self.packed, self.state = layer, packed, state
        self.last = nn.Linear(width, 4)

    def forward(self, x):
        x = self.first(x).relu()
        if self.packed:
            x = nn.utils.rnn.pack_padded_sequence(
                x, [x.shape[1]] * len(x), batch_first=True)
        x, state = self.layer(x)
        if self.packed:
            x, _ = nn.utils.rnn.pad_packed_sequence(x, batch_first=True)
        if self.state:
            state = state[0] if isinstance(state, tuple) else state
            return self.last(state[-1] if state.dim() == 3 else state)
        return self.last(x.mean(1))


class Loop(nn.Module):
    """A cell in a loop over time."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        state, outs = None, []
        for step in x.unbind(1):
            state = self.layer(step, state)
            outs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outs, 1), state


def check(layer, width, hidden, groups=1, **settings):
    torch.manual_seed(0)
    net = randomise(Net(layer, width, **settings)).double().eval()
    space = trace(net, STEPS)
    found = {u.name: (u.size, u.groups) for u in space.units}
    name = next(name for name in found if name.startswith('layer'))
    assert found == {'first': (8, 1), name: (hidden, groups)}
    for keep in keeps(space, 3):
        assert difference(net, space, keep, STEPS) < 1e-12
        subnet = slice_model(net, space, keep)
        assert_counts(subnet, space, keep, STEPS)
        rnn = next(m for m in subnet.modules()
                   if isinstance(m, (nn.RNNBase, nn.RNNCellBase)))
        rows = dict(rnn.named_parameters())
        weight = rows.get('weight_hh_l0', rows.get('weight_hh'))
        assert rnn.hidden_size == weight.shape[1]
        weight = rows.get('weight_ih_l0', rows.get('weight_ih'))
        assert rnn.input_size == weight.shape[1] == subnet.first.out_features
        # A state dict loads into the same module made by its own arguments.
        again = type(rnn)(rnn.input_size, rnn.hidden_size, **{
            key: getattr(rnn, key)
            for key in ('num_layers', 'bidirectional', 'bias', 'batch_first')
            if hasattr(rnn, key)
        }).double()
        again.load_state_dict(rnn.state_dict())
    return net, space


LAYERS = {
    'LSTM': lambda **k: nn.LSTM(8, 6, batch_first=True, **k),
    'GRU': lambda **k: nn.GRU(8, 6, batch_first=True, **k),
    'RNN': lambda **k: nn.RNN(8, 6, batch_first=True, **k),
    'ReLU':
    lambda **k: nn.RNN(8, 6, nonlinearity='relu', batch_first=True, **k),
}


@pytest.mark.parametrize('kind', LAYERS)
def test_one_layer(kind):
    check(LAYERS[kind](), 6, 6)


@pytest.mark.parametrize('kind', ['LSTM', 'GRU'])
@pytest.mark.parametrize(
    'settings', [
        dict(bias=False),
        dict(num_layers=2),
        dict(bidirectional=True),
        dict(num_layers=2, bidirectional=True),
    ],
    ids=str)
def test_layers_and_directions_keep_equal_counts(kind, settings):
    ways = 1 + settings.get('bidirectional', False)
    layers = settings.get('num_layers', 1) * ways
    check(LAYERS[kind](**settings), 6 * ways, 6, layers)


def test_packed_sequences_and_the_last_state():
    check(LAYERS['LSTM'](), 6, 6, packed=True)
    check(LAYERS['GRU'](), 6, 6, state=True)


@pytest.mark.parametrize('kind', [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_in_a_loop(kind):
    check(Loop(kind(8, 6)), 6, 6)


@pytest.mark.parametrize(
    'settings', [
        dict(),
        dict(bias=False, num_layers=2),
        dict(num_layers=2, bidirectional=True),
    ],
    ids=str)
def test_what_a_state_is_projected_to(settings):
    """The state stays: of equal sizes PyTorch would see no projection."""
    torch.manual_seed(0)
    layer = nn.LSTM(8, 6, proj_size=5, batch_first=True, **settings)
    ways = 1 + settings.get('bidirectional', False)
    net = randomise(Net(layer, 5 * ways)).double().eval()
    space = trace(net, STEPS)
    groups = settings.get('num_layers', 1) * ways
    assert [(u.size, u.groups) for u in space.units] == [(8, 1), (5, groups)]
    for keep in keeps(space, 3):
        assert difference(net, space, keep, STEPS) < 1e-12
        subnet = slice_model(net, space, keep)
        assert_counts(subnet, space, keep, STEPS)
        rnn = subnet.layer
        assert rnn.hidden_size == 6 == rnn.weight_hr_l0.shape[1]
        assert rnn.proj_size == rnn.weight_hh_l0.shape[1] == len(
            rnn.weight_hr_l0)


def test_gates_by_hand():
    """Channels 1 and 4 of six go: rows 1, 4, 7, 10, … of the weights."""
    net, space = check(LAYERS['LSTM'](), 6, 6)
    keep = torch.ones(space.layout.E, dtype=torch.bool)
    place = next(n for n, u in enumerate(space.units) if u.size == 6)
    start = space.layout.slice_of(place).start
    keep[[start + 1, start + 4]] = False
    subnet = slice_model(net, space, keep)
    rows = [r for r in range(24) if r % 6 not in (1, 4)]
    old, new = named_tensors(net), named_tensors(subnet)
    assert torch.equal(new['layer.weight_ih_l0'],
                       old['layer.weight_ih_l0'][rows])
    assert torch.equal(new['layer.bias_hh_l0'], old['layer.bias_hh_l0'][rows])
    assert torch.equal(new['layer.weight_hh_l0'],
                       old['layer.weight_hh_l0'][rows][:, [0, 2, 3, 5]])
