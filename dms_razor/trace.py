# Copyright (c) dms_razor contributors. All rights reserved.
"""``trace``: the way in to tracing."""
import re
from dataclasses import replace
from typing import Any, Callable, Iterable, Mapping, Optional, Tuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from .adapters.quantised import is_quantised, is_quantised_linear
from .core.resource import METRICS, demanded
from .counting import count_each
from .errors import refuse_beside, refuse_unknown
from .masking.copying import check_copy, whole
from .network import (alone, as_arguments, describe_inputs, refuse_no_network,
                      refuse_wrapped, run_model, samples_of, several,
                      tensors_of, untouched)
from .proof.check import check_space
from .proof.smaller import DEAR, smaller_inputs
from .proof.twin import prove_twin
from .space import Space
from .tracing import RULES
from .tracing.builder import SpaceBuilder
from .tracing.lifetimes import Lifetimes
from .tracing.modes import mode_reads
from .tracing.options import Options
from .tracing.recorder import Recorder
from .tracing.spared import idle_layers
from .tracing.training import TrainMode
from .tracing.tying import of_layers


def trace(model: nn.Module,
          example_inputs: Any = None,
          forward: Optional[Callable] = None,
          *,
          batch_size: Optional[int] = None,
          check: bool = True,
          probe_inputs: Any = None,
          twin: Optional[nn.Module] = None,
          train_inputs: Any = None,
          train_forward: Optional[Callable] = None,
          metrics: Optional[Iterable[str]] = None,
          **options: Any) -> Space:
    """Find everything that can be pruned in a network.

    It runs in eval mode and, where its code asks for the mode, in train mode,
    on the example repeated to two samples: what runs in training alone reads
    masks too, but costs no MACs. All is as before then.

    Args:
        model (nn.Module): Any network.
        example_inputs (Any): What one forward pass takes, of the shape MACs
            are counted for: a tensor, a tuple or list of arguments, or a
            mapping of keyword arguments; one sample is enough.
        forward (Callable, optional): Called as ``forward(model, *inputs)`` or
            ``forward(model, **inputs)`` to reach all layers.
        batch_size (int, optional): Samples in the example: found out.
        check (bool): Whether what cannot be proved, or is wrong, is fixed.
        probe_inputs (Any, optional): On what, instead of inputs drawn alike.
        twin (nn.Module, optional): A small network of the same code that is
            checked in the place of ``model``, on ``probe_inputs`` if given.
        train_inputs, train_forward (optional): The same of a training step.
        metrics (Iterable[str], optional): Which of those that take another
            run, such as 'memory', will be asked for. All by default.
        **options: ``units``, ``only``, ``frozen``, ``width``, ``depth``,
            ``heads``, ``qk``, ``v``, ``layers``: what may be removed, see
            :class:`dms_razor.tracing.options.Options`.

    Raises:
        RuntimeError: The forward fails on the example input.
        TypeError: An option is of the wrong type, or unknown.
        ValueError: Nothing can be pruned, a pattern matches nothing, no tensor
            is returned, the network cannot be read, the inputs are unknown.
    """
    refuse_unknown('trace', options, trace, Options)
    wanted = Options(**options)
    proof = dict(probe_inputs=probe_inputs, twin=twin)
    refuse_beside('check', None if check else False, **proof)
    example_inputs = _readable(example_inputs)
    inputs, run = as_arguments(example_inputs, forward or run_model)
    with alone(whole(model)) as model:
        recorder = record(model, inputs, run, metrics)
        recorder.batch_size = _samples(recorder, inputs, run, batch_size)
        training = TrainMode(recorder, train_forward or forward or run_model)
        training.record(example_inputs, train_inputs, train_forward)
        recorder.idle = idle_layers(recorder, run, inputs)
        builder = SpaceBuilder(recorder, wanted)
        space = _proved(builder, inputs, run, training, **proof) if check \
            else builder.build()
        space = of_layers(space, wanted.layers)
        return _describe(space, training, example_inputs, forward)


def _proved(builder: SpaceBuilder, inputs: Tuple, run: Callable,
            training: TrainMode, probe_inputs: Any,
            twin: Optional[nn.Module]) -> Space:
    """The space of a network as far as the self-check can prove it."""
    given = None if probe_inputs is None else as_arguments(
        _readable(probe_inputs), run)[0]
    if twin is None:
        space, recorder, fewer = builder.build(), builder.recorder, inputs
        if given is None and space.resource.supernet() >= DEAR:
            fewer = smaller_inputs(recorder, inputs, run, training)
        space = check_space(recorder.model, fewer, run, builder, space, given,
                            training)
        if fewer is not inputs:
            space.proof = replace(
                space.proof, inputs=tuple(tensors_of(fewer)[0].shape))
        return space
    given = given or inputs
    other = SpaceBuilder(record(twin, given, run), builder.wanted)
    return prove_twin(builder, other, twin, given, run)


def _readable(inputs: Any) -> Any:
    """Arguments, or a mapping, that a manifest can hold; others are refused.
    """
    if inputs is None:
        raise ValueError(
            'a network is read off one forward pass, and there is nothing to '
            'run it on: give example_inputs, such as images[:1]')
    describe_inputs(inputs)
    tensors = tensors_of(inputs)
    if tensors and not any(tensor.numel() for tensor in tensors):
        raise ValueError(
            f'the example input is empty, of shape {tuple(tensors[0].shape)}, '
            'so that no layer has anything to do: give one sample, such as '
            'images[:1]')
    return inputs if isinstance(inputs, Mapping) else several(inputs)


def _describe(space: Space, training: TrainMode, inputs: Any,
              forward: Optional[Callable]) -> Space:
    """Note what the space was traced on, and what that costs."""
    recorder, space.training = training.first, training.report()
    space.example_inputs = inputs
    space.batch_size = recorder.batch_size
    first = tensors_of(inputs)[:1]
    space.input_shape = tuple(first[0].shape) if first else ()
    space.counted = count_each(recorder.model, inputs, forward)
    _check_samples(space)
    return space


def _samples(recorder: Recorder, inputs: Tuple, run: Callable,
             stated: Optional[int]) -> int:
    """How many samples the example holds; 1 if there is no cost to divide."""
    if stated is None and not recorder.facts.operations:
        return 1
    return samples_of(recorder.model, inputs, run, stated)


def _check_samples(space: Space) -> None:
    """Refuse a number of samples that cannot be right."""
    macs = space.counted['macs'].total if 'macs' in space.counted else 0
    if macs % space.batch_size:
        raise ValueError(
            f'the example inputs take {macs:,} MACs, which are no '
            f'{space.batch_size} equal samples: state batch_size=, the number '
            'of samples that they hold.')


def refuse_unreadable(model: nn.Module) -> None:
    """Raise ValueError for a network whose layers cannot be read."""
    name = type(model).__name__
    for path, module in model.named_modules():
        part = f'the part "{path}" of this {name}' if path else f'this {name}'
        if hasattr(module, '_orig_mod') or getattr(
                module, '_compiled_call_impl', None) is not None or (
                    isinstance(module, torch.jit.ScriptModule) and not path):
            raise ValueError(
                f'{part} was compiled or scripted, so that its layers cannot '
                'be masked; search the network that it was made from '
                '(torch.compile keeps it as _orig_mod; without compile() '
                'where that was called on a module), and compile it once it '
                'is searched')
        if any(map(is_lazy, module._parameters.values())):
            raise ValueError(
                f'{part} is lazy: its weights have no shape yet. Run the '
                'network once on an example input before the search')
        if is_quantised(module) and not is_quantised_linear(module):
            raise ValueError(
                f'{part}, of {type(module).__name__}, holds quantised '
                'weights, packed numbers in which no channel is to be found, '
                'and it is '
                'no nn.Linear of a forward of its own, which could be asked '
                'for them. Search the network in floating point, or with '
                'linear layers of bitsandbytes where memory is short '
                '(BitsAndBytesConfig), and quantise what comes out')


def record(
    model: nn.Module,
    example_inputs: Tuple,
    forward: Callable,
    metrics: Optional[Iterable[str]] = ()) -> Recorder:
    """Run ``forward`` and record it, leaving no mark on the model.

    Args:
        model (nn.Module): The network.
        example_inputs (tuple): What it is run on.
        forward (Callable): How.
        metrics (Iterable[str], optional): As for :func:`trace`.
    """
    refuse_no_network(model, 'a trace')
    refuse_wrapped(model)
    refuse_unreadable(model)
    recorder = Recorder(model, RULES)
    recorder.metrics = demanded(metrics)
    lifetimes = Lifetimes(recorder)
    watched = any(METRICS[name].activations for name in recorder.metrics)
    name = type(model).__name__
    try:
        with untouched(model), mode_reads(model) as recorder.asked:
            recorder.run(
                lifetimes.noting(forward) if watched else forward,
                example_inputs)
    except Exception as error:
        shapes = [
            tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            for x in example_inputs
        ]
        raise RuntimeError(
            f'the forward of {name} fails on the example input {shapes} '
            f'({type(error).__name__}: {str(error).partition(chr(10))[0]}). '
            f'{_wanted(model, example_inputs, error)}') from error
    if not recorder.output_nodes:
        raise ValueError(
            f'the forward of {name} returns no floating-point tensor that '
            'depends on its input, so that nothing can be compared. Give a '
            'forward that returns the features or scores of the network.')
    check_copy(model, example_inputs, forward)
    recorder.lifetimes = lifetimes.watch(
        model, forward, example_inputs) if watched else lifetimes
    return recorder


def _wanted(model: nn.Module, inputs: Tuple, error: Exception) -> str:
    """What to give instead of inputs on which a forward fails."""
    if inputs and all(type(number) is int for number in inputs):
        return 'If that is a shape, give a tensor of it: torch.zeros(' + \
            ', '.join(map(str, inputs)) + ').'
    if any(type(array).__module__ == 'numpy' for array in inputs):
        return 'Give tensors: torch.from_numpy(array).'
    text = str(error).lower()
    if len(inputs) > 1 and isinstance(error, TypeError) and \
            'positional argument' in text:
        return (f'These are {len(inputs)} arguments, as of a batch with its '
                'labels: give what the forward takes alone, images[:1].')
    own = sorted({str(p.dtype) for p in model.parameters()
                  if p.is_floating_point()})  # yapf: disable
    first = next(iter(tensors_of(inputs)), None)
    # Other shapes and words out of range fail with no word of types.
    if first is not None and own and str(first.dtype) not in own and \
            re.search('type|byte|long|double', text):
        return (f'The network computes in {" and ".join(own)}, its example '
                f'is of {first.dtype}: give images[:1].to({own[0]}).')
    return 'Give an example input of the shape that the network takes.'
