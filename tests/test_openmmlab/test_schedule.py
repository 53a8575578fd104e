# Copyright (c) dms_razor contributors. All rights reserved.
import pytest

from dms_razor.openmmlab.schedule import SearchSchedule, Steps


@pytest.mark.parametrize('settings, loop, steps', [
    (dict(), (120, 10), Steps(120, 0, 0)),
    (dict(), (120, None), Steps(120, 0, 0)),
    (dict(width_only_epochs=2), (120, 10), Steps(100, 0, 20)),
    (dict(epochs=10, width_only_epochs=1), (120, 10), Steps(100, 0, 10)),
    (dict(epochs=12, warmup_epochs=8), (120, 10), Steps(120, 80, 0)),
    (dict(iters=70, warmup_iters=5), (120, 10), Steps(70, 5, 0)),
    (dict(width_only_iters=20), (120, None), Steps(100, 0, 20)),
])
def test_lengths_in_iterations(settings, loop, steps):
    assert SearchSchedule(**settings).steps(*loop) == steps


@pytest.mark.parametrize('settings, loop, message', [
    (dict(epochs=12, width_only_epochs=1), (120, 10), 'max_epochs=13'),
    (dict(iters=121), (120, None), 'max_iters=121'),
    (dict(epochs=3), (120, None), 'search.iters'),
    (dict(epochs=3, warmup_epochs=3), (120, 10), 'warmup_epochs is 3'),
    (dict(width_only_epochs=12), (120, 10), 'warmup_epochs'),
])
def test_a_search_that_does_not_fit_the_training(settings, loop, message):
    with pytest.raises(ValueError, match=message):
        SearchSchedule(**settings).steps(*loop)


@pytest.mark.parametrize('settings, message', [
    (dict(epochs=-1), 'search.epochs'),
    (dict(epochs=1.5), 'search.epochs'),
    (dict(epochs=3, warmup_iters=10), 'one unit'),
])
def test_lengths_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        SearchSchedule(**settings)
