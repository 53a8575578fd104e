# Copyright (c) dms_razor contributors. All rights reserved.
"""The table of rules, and operations that have none."""
import pytest
import torch
from small_nets import check, conv
from torch import nn

from dms_razor.tracing import RULES, register_rule

OUT = dict(out=conv(16, 8))


def test_an_unknown_operation_is_named():
    check(lambda net, x: net.out(torch.fft.fft2(x).real), {'out': 8},
          {'stem': 'Net uses fft_fft2, for which it is not known'}, **OUT)


def test_an_unknown_operation_in_a_module_names_the_module():
    check(
        lambda net, x: net.out(net.mixer(x)), {'out': 8},
        {'stem': 'LocalResponseNorm "mixer" uses local_response_norm'},
        mixer=nn.LocalResponseNorm(3),
        **OUT)


@pytest.fixture
def rule():
    """A rule of one's own for the time of a test."""
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


def test_a_rule_of_ones_own(rule):

    @register_rule('fft_fft2', 'real')
    def pass_on(recorder, call):
        return [recorder.labels_of(call.tensors[0])]

    check(lambda net, x: net.out(torch.fft.fft2(x).real), {
        'stem': 16,
        'out': 8
    }, **OUT)


def test_a_wrong_rule_is_found_out(rule):

    @register_rule('cumsum')
    def pass_on(recorder, call):
        return [recorder.labels_of(call.tensors[0])]

    check(lambda net, x: net.out(x.cumsum(1)), {'out': 8},
          {'stem': 'changes what the network computes'}, **OUT)


def test_a_rule_that_fails_is_no_failure_of_the_network(rule):

    @register_rule('cumsum')
    def fail(recorder, call):
        raise IndexError('of the rule')

    check(
        lambda net, x: net.out(x.cumsum(1)), {'out': 8},
        {'stem': 'in a way that is not understood (IndexError: of the rule)'},
        **OUT)
