# Copyright (c) dms_razor contributors. All rights reserved.
"""What the recorder sees, what it cannot see, and that it leaves no mark."""
import copy

import pytest
import torch
from equality import assert_true, reasons
from small_nets import IMAGES, Block, build, check, conv, depths, widths
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dms_razor.trace import trace
from dms_razor.tracing import RULES
from dms_razor.tracing.recorder import Recorder

OUT = dict(out=conv(16, 8))
BOTH = {'stem': 16, 'out': 8}


def record(net, inputs=IMAGES):
    """A finished recording."""
    recorder = Recorder(net.eval(), RULES)
    recorder.run(lambda net, x: net(x), (inputs, ))
    return recorder


def test_operations_and_module_calls():
    net = build(
        lambda net, x: net.out(net.blocks(x)),
        blocks=nn.Sequential(Block()),
        **OUT)
    recorder = record(net)
    paths = [call.path for call in recorder.calls]
    assert paths == [
        '', 'stem', 'blocks', 'blocks.0', 'blocks.0.conv1', 'blocks.0.conv2',
        'blocks.0.norm', 'out', 'head'
    ]
    block = recorder.calls[3]
    assert block.parent == 2 and block.returns_tensor
    ops = [n.op for n in recorder.nodes[block.first:block.last]]
    assert ops == ['conv2d', 'relu', 'conv2d', 'batch_norm', 'add', 'relu']
    assert recorder.nodes[block.outputs[0]].op == 'relu'
    add = recorder.nodes[block.last - 2]
    assert add.plain_add and add.inputs == [block.inputs[0], add.index - 1]


@pytest.mark.parametrize('middle', [
    lambda net, x: net.identity(x),
    lambda net, x: F.dropout(x, training=False),
    lambda net, x: x.contiguous().to(x.dtype).float(),
])
def test_what_returns_its_input_is_no_operation(middle):
    # Else the residual stream would seem to start anew inside a block.
    class Wrapped(Block):

        def forward(self, x):
            middle(self, x)
            return super().forward(x)

    block = Wrapped()
    block.identity = nn.Identity()
    net = build(
        lambda net, x: net.out(net.blocks(x)),
        blocks=nn.Sequential(block),
        **OUT)
    assert depths(assert_true(net, IMAGES)) == {'blocks': ('blocks.0', )}


def test_shared_weights_have_their_first_name():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    recorder = Recorder(net, RULES)
    assert recorder.name_of(net[1].weight) == '0.weight'
    assert recorder.name_of(torch.ones(1)) is None


class Scripted(nn.Module):
    """A module that PyTorch runs past all hooks on functions."""

    def forward(self, x):
        return x * torch.sigmoid(x)


def test_a_scripted_module_keeps_its_channels():
    check(
        lambda net, x: net.out(net.script(x) + net.side(x)), {'out': 8}, {
            'stem': 'what the scripted',
            'side': 'what the scripted'
        },
        script=torch.jit.script(Scripted()),
        side=conv(16, 16),
        count=False,
        **OUT)


@torch.jit.script
def scripted_gate(x: torch.Tensor) -> torch.Tensor:
    """A function whose inside is not seen either."""
    return x * x.mean(1, keepdim=True)


def test_a_scripted_function_keeps_its_channels():
    # Once its result takes the place of the channels, once it joins them.
    space = assert_true(
        build(
            lambda net, x: net.out(scripted_gate(net.more(x))),
            more=conv(16, 16),
            **OUT),
        IMAGES,
        count=False)
    assert widths(space) == {'stem': (16, 1), 'out': (8, 1)}
    space = assert_true(
        build(lambda net, x: net.out(x + scripted_gate(x)), **OUT),
        IMAGES,
        count=False)
    assert widths(space) == {'out': (8, 1)}


class Swish(torch.autograd.Function):
    """A function with a gradient of its own."""

    @staticmethod
    def forward(ctx, x):
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, grad):
        return grad


def test_functions_with_a_gradient_of_their_own_are_seen_through():
    check(lambda net, x: net.out(Swish.apply(x)), BOTH, count=False, **OUT)


@pytest.mark.parametrize('reentrant', [True, False])
@pytest.mark.filterwarnings('ignore:None of the inputs')
def test_checkpointed_layers(reentrant):
    check(
        lambda net, x: net.out(
            checkpoint(net.more, x, use_reentrant=reentrant)), {
                'stem': 16,
                'more': 12,
                'out': 8
            },
        more=conv(16, 12),
        out=conv(12, 8),
        count=False)


def test_control_flow_that_reads_values_keeps_the_channels():
    check(lambda net, x: net.out(x) if x.sum((2, 3))[0, 0] > -1e9 else x,
          {'out': 8}, {'stem': 'by number'}, **OUT)


def test_results_in_any_container_are_outputs():

    class Sample:

        def __init__(self, **parts):
            self.__dict__.update(parts)

    class Returns(nn.Module):

        def __init__(self):
            super().__init__()
            self.a, self.b = conv(3, 8), conv(8, 8)

        def forward(self, x):
            a = self.a(x)
            return Sample(features=[a], scores=dict(b=self.b(a)))

    with pytest.raises(ValueError, match='a: output of the network'):
        trace(Returns(), IMAGES)


@pytest.mark.parametrize('result', [
    lambda x: None, lambda x: 3.5, lambda x: x.argmax(1),
    lambda x: torch.ones(3)
])
def test_a_forward_that_returns_no_tensor(result):
    net = build(lambda net, x: net.out(x), **OUT)
    with pytest.raises(ValueError, match='returns no floating-point tensor'):
        trace(net, IMAGES, forward=lambda net, x: result(net(x)))


def test_macs_are_those_of_one_image():
    net = build(lambda net, x: net.out(x), **OUT)
    one, four = (trace(net, IMAGES[:1].repeat(n, 1, 1, 1)) for n in (1, 4))
    assert one.resource.supernet() == four.resource.supernet()


class Marked(nn.Module):
    """Has state of all kinds that tracing must not touch."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = conv(3, 8), nn.BatchNorm2d(8), conv(8, 4)
        self.drop = nn.Dropout(.5)
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))
        self.register_buffer('mean', torch.zeros(8))
        self.fail = False

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        self.steps += 1
        x = F.relu(self.norm(self.a(x)))
        self.mean = self.mean * .9 + x.mean((0, 2, 3)).detach() * .1
        torch.rand(3)
        if self.fail:
            raise KeyError('lost')
        return self.b(self.drop(x))


@pytest.mark.parametrize('fail', [False, True])
def test_no_mark_is_left_on_the_network(fail):
    net = Marked().train()
    net.drop.eval()
    net.a.weight.requires_grad_(False)
    net.fail = fail
    hook = net.norm.register_forward_hook(lambda module, args, out: None)
    before = copy.deepcopy(net.state_dict())
    objects = [id(t) for t in [*net.parameters(), *net.buffers()]]
    flags = {name: m.training for name, m in net.named_modules()}
    random = torch.get_rng_state()
    if fail:
        with pytest.raises(RuntimeError, match='KeyError'):
            trace(net, IMAGES)
    else:
        trace(net, IMAGES)
    assert torch.equal(random, torch.get_rng_state())
    assert {name: m.training for name, m in net.named_modules()} == flags
    after = net.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [id(t) for t in [*net.parameters(), *net.buffers()]] == objects
    assert all(p.grad is None for p in net.parameters())
    assert not net.a.weight.requires_grad and net.b.weight.requires_grad
    hooks = [(list(m._forward_hooks), list(m._forward_pre_hooks))
             for m in net.modules() if m is not net.norm]
    assert all(found == ([], []) for found in hooks)
    assert list(net.norm._forward_hooks) == [hook.id]
    assert all(
        type(m).__name__[:6] != 'Masked' for m in net.modules()
        if m is not net)


def test_an_error_inside_that_is_caught_does_not_upset_the_record():

    class Careful(nn.Module):

        def __init__(self):
            super().__init__()
            self.narrow, self.wide = conv(99, 4), conv(16, 4)

        def forward(self, x):
            try:
                return self.narrow(x)
            except RuntimeError:
                return self.wide(x)

    check(
        lambda net, x: net.out(net.careful(x)), {
            'stem': 16,
            'careful.wide': 4,
            'out': 8
        },
        careful=Careful(),
        count=False,
        out=conv(4, 8))


def test_reasons_name_modules_not_objects():
    space = trace(
        build(
            lambda net, x: net.out(net.mixer(x)),
            mixer=nn.LocalResponseNorm(3),
            **OUT), IMAGES)
    assert '0x' not in ''.join(reasons(space).values())
