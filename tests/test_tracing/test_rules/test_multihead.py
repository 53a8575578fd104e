# Copyright (c) dms_razor contributors. All rights reserved.
"""torch's own attention: masked and cut networks, and what stays."""
import pytest
import torch
from equality import assert_true, random_keep, reasons, unit_table
from torch import nn

from dms_razor.masking import attach, unmask
from dms_razor.proof.noise import EqualNoise
from dms_razor.subnet import build_subnet, export_subnet
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace


class Attends(nn.Module):
    """An attention beside a stream: of itself, or of something else."""

    def __init__(self, first=True, shown=False, other=None, **numbers):
        super().__init__()
        self.stem = nn.Linear(6, 16)
        self.other = other and nn.Linear(6, other)
        self.attention = nn.MultiheadAttention(
            16, 4, batch_first=first, kdim=other, vdim=other, **numbers)
        self.head = nn.Linear(16, 3)
        self.first, self.shown, self.given = first, shown, {}

    def forward(self, x):
        query = self.stem(x).tanh()
        key = query if self.other is None else self.other(x.flip(1))
        given = {
            name: make(x.shape[1], x.dtype)
            for name, make in self.given.items()
        }
        if not self.first:
            query, key = query.transpose(0, 1), key.transpose(0, 1)
        out, weights = self.attention(query, key, key, **given)
        out = self.head(query + out)
        out = out if self.first else out.transpose(0, 1)
        return (out, weights) if self.shown else out


def later(size, dtype):
    return torch.full((size, size), -float('inf'), dtype=dtype).triu(1)


def padded(size, dtype):
    return (torch.arange(size) >= size - 2).expand(2, size)


def no(size, dtype):
    return False


CASES = {
    'weights asked for': (dict(), dict()),
    'tokens first': (dict(first=False), dict(need_weights=no)),
    'causal':
    (dict(), dict(attn_mask=later, is_causal=lambda *_: True,
                  need_weights=no)),
    'padded, keys of its own':
    (dict(add_bias_kv=True, add_zero_attn=True),
     dict(key_padding_mask=padded, attn_mask=lambda *x: later(*x) < 0)),
    'padded':
    (dict(bias=False), dict(key_padding_mask=padded, need_weights=no)),
    'of something else': (dict(other=10, add_bias_kv=True), dict()),
    'as wide': (dict(other=16), dict()),
}


@pytest.mark.parametrize('case', CASES)
def test_attention_of_torch_is_pruned(case):
    numbers, given = CASES[case]
    net = Attends(**numbers)
    net.given = given
    space = assert_true(net, torch.randn(2, 5, 6), number=2)
    found = unit_table(space)
    assert found['attention.heads'] == ('heads', 4, 1)
    assert found['attention.qk'] == ('qk', 4, 4)
    assert found['attention.v'] == ('v', 4, 4)
    assert found['stem'] == ('width', 16, 1)
    assert ('other' in found) == (numbers.get('other') == 10)


def heads_and_reason(net):
    space = assert_true(net, torch.randn(2, 5, 6), number=2)
    assert {'attention.qk', 'attention.v'} <= set(unit_table(space))
    return 'attention.heads' in unit_table(space), reasons(space).get(
        'attention', '')


@pytest.mark.parametrize('average', [True, False])
def test_heads_whose_weights_are_returned_stay(average):
    net = Attends(shown=True)
    net.given = dict(average_attn_weights=lambda *_: average)
    found, reason = heads_and_reason(net)
    assert not found and 'attention weights' in reason


def test_heads_with_a_mask_each_stay():
    net = Attends()
    net.given = dict(attn_mask=lambda n, dtype: torch.arange(8. * n * n).cos().
                     to(dtype).view(8, n, n))
    found, reason = heads_and_reason(net)
    assert not found and 'a mask of each head' in reason


def test_the_function_itself_is_refused_by_name():
    """Where no layer of torch runs it, nothing could hold fewer heads."""

    class Own(Attends):

        def forward(self, x):
            x, layer = self.stem(x).transpose(0, 1), self.attention
            return self.head(
                nn.functional.multi_head_attention_forward(
                    x, x, x, 16, 4, layer.in_proj_weight, layer.in_proj_bias,
                    None, None, False, 0., layer.out_proj.weight,
                    layer.out_proj.bias)[0].relu())

    with pytest.raises(ValueError, match='runs multi_head_attention_forward'):
        trace(Own(), torch.randn(2, 5, 6))


def test_a_layer_that_is_called_twice_has_its_heads_once():

    class Twice(nn.Module):

        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x):
            x = self.stem(x)
            for _ in range(2):
                x = x + self.attention(x, x, x)[0]
            return self.head(x)

    space = assert_true(Twice(), torch.randn(2, 5, 6), number=2)
    assert list(unit_table(space)) == [
        'stem', 'attention.heads', 'attention.qk', 'attention.v'
    ]


class Translates(nn.Module):

    def __init__(self, norm_first):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
        self.body = nn.Transformer(
            16,
            4,
            2,
            1,
            24,
            dropout=.2,
            batch_first=True,
            norm_first=norm_first)

    def forward(self, x):
        tokens = x.shape[1]
        x, hidden = self.stem(x), padded(tokens, x.dtype)
        return self.head(
            self.body(
                x,
                x.flip(1),
                tgt_mask=later(tokens, bool) < 0,
                src_key_padding_mask=hidden,
                memory_key_padding_mask=hidden))


def check_modes(net, space, keep, x):
    """Masked and cut network, in eval and in train mode, in float64."""
    net, x = net.double(), x.double()
    cut = slice_model(net, space, keep)
    for mode in (True, False):
        attach(net.train(mode), space, lambda: keep.double())
        with torch.no_grad(), EqualNoise():
            expected, found = net(x), cut.train(mode)(x)
        unmask(net)
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-9)
    return cut


@pytest.mark.filterwarnings('ignore:enable_nested_tensor')
@pytest.mark.parametrize('norm_first', [False, True])
def test_the_whole_transformer_of_torch(norm_first, tmp_path):
    """Encoder and decoder; the subnet is built again from its file."""
    net, x = Translates(norm_first).eval(), torch.randn(2, 5, 6)
    space = trace(net, x)
    kinds = [unit.kind for unit in space.units]
    assert kinds.count('heads') == 4 and kinds.count('depth') >= 2
    assert unit_table(space)['stem'] == ('width', 16, 1)
    for seed in range(3):
        keep = random_keep(space, seed)
        cut = check_modes(net, space, keep, x)
    folder = tmp_path / 'subnet'
    export_subnet(folder, net.float(), space, keep, picture=False)
    again = build_subnet(
        Translates(norm_first), folder / 'subnet.json', folder / 'subnet.pth')
    torch.testing.assert_close(again.eval()(x), cut.float().eval()(x))
    build_subnet(Translates(norm_first), folder / 'subnet.json')


def test_padded_tokens_of_an_encoder_in_eval_mode():
    """torch would make nested tensors of them, past all masks."""

    class Encodes(nn.Module):

        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
            layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
            self.body = nn.TransformerEncoder(layer, 2)

        def forward(self, x):
            hidden = padded(x.shape[1], x.dtype)
            x = self.body(self.stem(x), src_key_padding_mask=hidden)
            return self.head(x) * ~hidden[..., None]  # as losses leave it out

    net, x = Encodes().eval(), torch.randn(2, 5, 6)
    space = trace(net, x)
    assert net.body.use_nested_tensor, 'it is as it was'
    check_modes(net, space, random_keep(space, 1), x)
    assert net.body.use_nested_tensor
