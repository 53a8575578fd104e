# Copyright (c) dms_razor contributors. All rights reserved.
import random
from types import SimpleNamespace

from dms_razor.openmmlab.resume import (get_random_state,
                                        restore_before_next_batch)


def batches():
    while True:
        yield random.random()


def test_batches_after_the_skipped_ones_are_the_saved_run_s():
    random.seed(3)
    state = get_random_state()
    expected = [random.random() for _ in range(3)]
    random.seed(99)
    loop = SimpleNamespace(iter=2, dataloader_iterator=batches())
    restore_before_next_batch(loop, state)
    drawn = [next(loop.dataloader_iterator) for _ in range(5)]
    assert drawn[2:] == expected and drawn[0] not in expected


def test_epoch_loops_are_restored_at_once():
    random.seed(3)
    state = get_random_state()
    expected = random.random()
    random.seed(99)
    restore_before_next_batch(SimpleNamespace(iter=2), state)
    assert random.random() == expected
