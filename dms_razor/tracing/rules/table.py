# Copyright (c) dms_razor contributors. All rights reserved.
"""Every operation once: its name, its other names, what it does, its rule.

A rule is ``rule(recorder, call) -> [labels of every output]``. It merges,
fixes or creates channel variables and notes which parameters carry them; it
raises ``NotUnderstood`` of :mod:`dms_razor.tracing.record` with a reason where
that is not possible. An operation without a rule is counted, and the channels
that it touches stay.

What an operation does is said in words:

| word | meaning |
| --- | --- |
| pointwise | every entry of its one tensor alone: the elementwise rule |
| binary | the same with several tensors |
| norm | normalises, with or without parameters of its own |
| affine | a norm whose own scale and shift can carry masks |
| layer | is linear in the weight and bias of its module |
| idempotent | f(f(x)) = f(x) |
| keeps_range | the result of a rectifier stays one |
| homogeneous | f(z · m) = f(z) · m for one m ≥ 0 a channel |
| linear | f(z · m) = f(z) · m for one number m |
| constant | its result is a constant of a shape given in numbers |
| read_out | it hands values of a tensor to Python |
"""
from typing import Callable, Dict, FrozenSet, List, Sequence

from ...core.registry import Registry

#: Canonical name of an operation -> its rule.
RULES: Dict[str, Callable] = Registry('rule')

#: Canonical names -> what these operations do, besides their rule.
_WORDS = (
    ('relu', 'pointwise idempotent homogeneous'),
    ('relu6 hardtanh', 'pointwise idempotent'),
    ('leaky_relu', 'pointwise homogeneous'),
    ('gelu silu sigmoid tanh hardswish hardsigmoid elu selu celu mish prelu '
     'softplus softsign logsigmoid threshold hardshrink softshrink tanhshrink '
     'rrelu exp log log1p sqrt rsqrt square abs sign sin cos erf floor ceil '
     'round reciprocal clamp clamp_min clamp_max isnan isinf nan_to_num '
     'logical_not bitwise_not copy zeros_like ones_like empty_like rand_like '
     'randn_like full_like bernoulli fill zero', 'pointwise'),
    ('neg', 'pointwise linear'),
    ('dropout', 'pointwise homogeneous keeps_range linear'),
    ('dropout2d', 'pointwise linear'),
    ('dropout1d dropout3d alpha_dropout feature_alpha_dropout '
     'feature_dropout', 'pointwise'),
    ('mul div', 'binary linear'),
    ('add sub pow maximum minimum max_binary where lerp addcmul addcdiv eq ne '
     'lt le gt ge logical_and logical_or logical_xor bitwise_and bitwise_or '
     'fmod remainder floor_divide atan2 copysign masked_fill', 'binary'),
    ('batch_norm layer_norm rms_norm group_norm', 'norm affine'),
    ('instance_norm sync_batch_norm local_response_norm normalize softmax '
     'log_softmax softmin gumbel_softmax', 'norm'),
    ('conv1d conv2d conv3d linear addmm', 'layer'),
    ('max_pool2d', 'homogeneous keeps_range'),
    ('avg_pool2d', 'homogeneous linear'),
    ('view reshape permute transpose contiguous flatten',
     'keeps_range linear'),
    ('unflatten roll getitem squeeze unsqueeze', 'linear'),
    ('new_zeros new_ones new_full new_empty new_tensor shape_as_tensor',
     'constant'),
    ('item tolist numpy array float int bool complex index equal allclose '
     'is_nonzero', 'read_out'),
)

#: Canonical name -> what the operation does.
PROPERTIES: Dict[str, FrozenSet[str]] = {
    name: frozenset(words.split())
    for names, words in _WORDS
    for name in names.split()
}

#: Canonical name -> other spellings, without underscores at the ends.
_SPELLINGS = {
    'abs': 'absolute',
    'add': 'iadd radd',
    'bitwise_and': 'and iand',
    'bitwise_not': 'invert',
    'bitwise_or': 'or ior',
    'cat': 'concat concatenate',
    'clamp': 'clip',
    'div': 'truediv itruediv true_divide divide',
    'floor_divide': 'floordiv',
    'logsigmoid': 'log_sigmoid',
    'movedim': 'moveaxis',
    'mul': 'imul rmul multiply',
    'neg': 'negative',
    'pow': 'ipow rpow',
    'reciprocal': 'rtruediv rdiv',
    'remainder': 'mod',
    'sub': 'isub rsub subtract',
    'transpose': 'swapaxes swapdims',
}

#: Other spelling -> canonical name.
ALIASES: Dict[str, str] = {
    spelling: name
    for name, spellings in _SPELLINGS.items()
    for spelling in spellings.split()
}


def op_name(func: Callable) -> str:
    """Canonical name: ``torch.Tensor.__iadd__`` and ``torch.add`` -> 'add'."""
    name = getattr(func, '__name__', str(func))
    if name == '__get__':  # a property such as Tensor.T
        name = getattr(getattr(func, '__self__', None), '__name__', name)
    name = name.partition('.')[0].strip('_')  # torch.ops: 'relu.default'
    return ALIASES.get(name, name)


def has(op: str, *words: str) -> bool:
    """Whether an operation does one of these things."""
    return not PROPERTIES.get(op, frozenset()).isdisjoint(words)


def those(*words: str) -> List[str]:
    """Names of the operations that do one of these things."""
    return [name for name in PROPERTIES if has(name, *words)]


def register_rule(*names: str, does: Sequence[str] = ()) -> Callable:
    """Decorator: the function is the rule of the operations ``names``.

    Args:
        names (str): Canonical names; a rule that is there is replaced.
        does (Sequence[str]): What new operations do, e.g. ``('pointwise',
            'idempotent')``, in the words above.

    Raises:
        ValueError: A word has no meaning.
    """
    known = frozenset().union(*PROPERTIES.values())
    for word in does:
        if word not in known:
            raise ValueError(f'an operation that is "{word}" is not known, '
                             f'use some of {", ".join(sorted(known))}')

    def register(rule: Callable) -> Callable:
        for name in names:
            RULES[name] = rule
            if does:
                PROPERTIES[name] = frozenset(does)
        return rule

    return register
