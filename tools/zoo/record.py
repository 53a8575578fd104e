# Copyright (c) dms_razor contributors. All rights reserved.
"""What the coverage of other packages notes of one network, in JSON."""
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Dict, List, Optional, Tuple, Union

#: Largest difference, over the largest entry of a slice, that counts as equal:
#: in float64, and where a network cannot compute in it.
BOUNDS = dict(float64=1e-6, float32=1e-3)

#: Status -> what it means, from good to bad.
STATUSES = {
    'equal': 'searched, trained one step, exported and built again; equal in '
    'eval and train mode',
    'not covered': 'cannot run here, whatever is done',
    'eval only': 'equal in eval mode; that train mode is not proved is said',
    'refused': 'refused with a message before training',
    'slow': 'not done in the time limit',
    'foreign': 'an error that is not ours, or no message',
    'late': 'refused after training has begun',
    'wrong': 'something differs that nobody has said',
    'not built': 'the network does not run as it is',
}


@dataclass
class Record:
    """What one network showed; differences are over a slice's largest entry.

    Attributes:
        family (str): 'timm', 'torchvision' or 'transformers'.
        name (str): The row, e.g. timm's module.
        variant (str): The network.
        status (str): One of :data:`STATUSES`.
        problem (str): What went wrong, with the line that says so.
        stage (str): What was being done then.
        params, units, elements: Of the network and its space.
        share, width_share (float): Share of the parameters that a subnet can
            lack, by all units and without depth.
        eval_error, train_error (float, optional): Masked supernet against
            subnet, in eval and in train mode.
        train_precision, precision (str): What they were compared in.
        train (str): What the space says of train mode.
        reload_error (float, optional): Subnet against what another process
            builds from its folder, in float32.
        macs (dict): Of the supernet and the subnet, by the closed form and by
            ``torch.utils.flop_counter``.
        outside (list): Reason, parameters, modules: what is in no unit.
        proof (str): What the self-check says.
        seconds (dict): Of the processor, by stage.
        revision (str): Commit of this package that made the row.
    """
    family: str
    name: str
    variant: str = ''
    status: str = 'not built'
    problem: str = ''
    stage: str = 'build'
    params: int = 0
    units: Dict[str, int] = field(default_factory=dict)
    elements: int = 0
    share: float = 0.
    width_share: float = 0.
    eval_error: Optional[float] = None
    train_error: Optional[float] = None
    precision: str = ''
    train_precision: str = ''
    train: str = ''
    reload_error: Optional[float] = None
    macs: Dict[str, List[int]] = field(default_factory=dict)
    outside: List[Tuple[str, int, List[str]]] = field(default_factory=list)
    proof: str = ''
    seconds: Dict[str, float] = field(default_factory=dict)
    revision: str = ''
    path: ClassVar[Optional[Path]] = None

    def save(self, path: Union[None, str, Path] = None) -> None:
        """Write it as JSON, by default where it was; it appears whole."""
        self.path = path = Path(path or self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix('.part')
        part.write_text(json.dumps(asdict(self), indent=1) + '\n')
        part.replace(path)

    @classmethod
    def load(cls, path: Union[str, Path]) -> 'Record':
        """Read what :meth:`save` has written."""
        record = cls(**json.loads(Path(path).read_text()))
        record.path = Path(path)
        return record
