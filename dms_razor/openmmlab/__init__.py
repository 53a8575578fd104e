# Copyright (c) dms_razor contributors. All rights reserved.
"""The OpenMMLab half: importing this package registers everything.

Configs name it once::

    custom_imports = dict(
        imports=['dms_razor.openmmlab'], allow_failed_imports=False)

It makes MMRazor work on current torch (:mod:`dms_razor.compat.shims`) before
anything of MMRazor is imported, and lets runners write checkpoints that appear
whole (:mod:`.whole_checkpoints`).
"""
from .. import compat

compat.refuse_missing()
compat.apply()

# isort: off
from . import whole_checkpoints  # noqa: E402
from .algorithm import DMS  # noqa: E402
from .autoformer import DMSStaticSupernet  # noqa: E402
from .digits import DigitsDataset  # noqa: E402
from .distill import DMSDistill  # noqa: E402
from .enlarge import DMSSupernet  # noqa: E402
from .evolution import DMSEvolutionLoop  # noqa: E402
from .hooks import (  # noqa: E402
    DMSHook, ExportSubnetHook, SearchCostHook, StructureLogHook,
    SubnetCheckpointHook)
from .loss import ResourceConstraintLoss  # noqa: E402
from .mutator import DMSMutator  # noqa: E402
from .one_shot import DMSOneShot  # noqa: E402
from .predictor import DMSMetricPredictor  # noqa: E402
from .retrain import RetrainConfig, standard_base  # noqa: E402
from .schedule import SearchSchedule, Steps  # noqa: E402
from .submodel import DMSSubModel  # noqa: E402
from .units import (  # noqa: E402
    BankUnit, DiffTopkChannelUnit, DiffTopkDepthUnit)
# isort: on

whole_checkpoints.apply()

__all__ = [
    'BankUnit', 'DMS', 'DMSDistill', 'DMSEvolutionLoop', 'DMSHook',
    'DMSMetricPredictor', 'DMSMutator', 'DMSOneShot', 'DMSStaticSupernet',
    'DMSSubModel', 'DMSSupernet', 'DiffTopkChannelUnit', 'DiffTopkDepthUnit',
    'DigitsDataset', 'ExportSubnetHook', 'ResourceConstraintLoss',
    'RetrainConfig', 'SearchCostHook', 'SearchSchedule', 'Steps',
    'StructureLogHook', 'SubnetCheckpointHook', 'standard_base'
]
