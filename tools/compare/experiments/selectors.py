# Copyright (c) dms_razor contributors. All rights reserved.
"""What is learnt, all else equal: selectors on a pretrained ResNet."""
from tools.compare.experiments._selectors import selectors
from tools.compare.experiments.pretrained import experiment as base

experiment = selectors(base, 'Selectors on a pretrained ResNet')
