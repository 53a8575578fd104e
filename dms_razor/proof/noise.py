# Copyright (c) dms_razor contributors. All rights reserved.
"""Random numbers that a network and its narrower copy draw alike.

A dropout draws a number for each entry: a narrower tensor draws fewer, and
without a block there are fewer draws. So PyTorch's dropouts keep everything,
other noise is one number wherever it is drawn, and what is left (orders,
indices) begins at one seed.
"""
from typing import Any, Callable, Dict

import torch
from torch.overrides import TorchFunctionMode

#: Functions whose noise a flag switches off -> the place of the flag.
_SWITCHES = {'rrelu': 3, 'multi_head_attention_forward': 13}
_SWITCHES.update((f'{kind}dropout{dims}', 2)
                 for kind in ('', 'alpha_', 'feature_', 'feature_alpha_')
                 for dims in ('', '1d', '2d', '3d'))
#: Functions that draw something else.
_SEEDED = frozenset(
    'exponential_ geometric_ cauchy_ log_normal_ random_ normal poisson '
    'randint randint_like randperm multinomial gumbel_softmax lstm gru '
    'rnn_tanh rnn_relu fractional_max_pool2d fractional_max_pool3d'.split())


class EqualNoise(TorchFunctionMode):
    """While it is entered, a draw depends on its distribution alone."""

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, '__name__', '')
        if name in _SWITCHES:
            place = _SWITCHES[name]
            if len(args) > place:
                args = (*args[:place], False, *args[place + 1:])
            else:
                kwargs['train' if 'train' in kwargs else 'training'] = False
        elif name == 'scaled_dot_product_attention':
            if len(args) > 4:
                args = (*args[:4], 0., *args[5:])
            kwargs.pop('dropout_p', None)
        elif name in _SEEDED:
            torch.manual_seed(0)
        elif name in _NUMBERS:
            named = {k: kwargs[k] for k in _NAMED if k in kwargs}
            number = _NUMBERS[name](*args[1:3], **named)
            return func(*args, **kwargs).fill_(number)
        elif name in ('bernoulli', 'bernoulli_'):
            return self._likely(func, name, args, kwargs)
        return func(*args, **kwargs)

    def _likely(self, func: Callable, name: str, args: tuple,
                kwargs: dict) -> Any:
        """Ones where they are as likely as zeros, or likelier."""
        share = kwargs.get('p', args[1] if len(args) > 1 else None)
        out = func(*args, **kwargs)
        if share is None:
            share = .5 if name == 'bernoulli_' else args[0]
        likely = torch.as_tensor(share, device=out.device) >= .5
        return out.copy_(likely.expand_as(out))


# Of the distribution's middle half, and no number that hides a difference.
_SHARE, _DEVIATIONS = .6, .3

#: Functions that fill a tensor -> one number of what they draw; the arguments
#: are those of the methods in place, see _NAMED.
_NUMBERS: Dict[str, Callable[..., float]] = {
    'uniform_': lambda a=0., b=1., **_: float(a + (b - a) * _SHARE),
    'normal_': lambda mean=0., std=1., **_: float(mean + std * _DEVIATIONS),
    **dict.fromkeys(('rand', 'rand_like'), lambda *_, **__: _SHARE),
    **dict.fromkeys(('randn', 'randn_like'), lambda *_, **__: _DEVIATIONS),
}
_NAMED = ('a', 'b', 'mean', 'std')
