# Copyright (c) dms_razor contributors. All rights reserved.
"""An exported subnet, built in a process that has not seen the search."""
from pathlib import Path

import torch

from dms_razor.proof.compare import Tolerance, compare
from dms_razor.subnet import build_subnet
from .case import Case
from .record import Record
from .whole_way import SAMPLES, _judge, _outputs, _stage

#: What rounding of another order of sums may explain, in float32.
BOUND = 1e-5


def build_again(record: Record, case: Case, folder: Path) -> None:
    """Compare with the outputs that were saved; fills in the record."""
    try:
        with _stage(record, 'reload'):
            subnet = build_subnet(
                case.model.eval(),
                folder / 'subnet' / 'subnet.json',
                folder / 'subnet' / 'subnet.pth',
                forward=case.forward)
            expected = torch.load(folder / 'outputs.pt', weights_only=True)
            found = _outputs(subnet, case, case.batch(SAMPLES, 9))
            record.reload_error = compare(expected, found,
                                          Tolerance(float('inf'), 1e-3))[0]
    except Exception as error:
        record.status, record.problem = _judge(record, error)
        return
    if not record.reload_error < BOUND:
        record.status = 'wrong'
        record.problem = 'the reloaded subnet differs by ' \
            f'{record.reload_error:.1e}'
