# Copyright (c) dms_razor contributors. All rights reserved.
"""Whether what runs is read by torch.compile, or by torch.export."""
import torch

#: Of PyTorch itself; ``torch.compiler`` has it from 2.3 on.
compiling = getattr(torch.compiler, 'is_compiling',
                    None) or torch._utils.is_compiling
#: From 2.7 on; where it is missing, always False.
exporting = getattr(torch.compiler, 'is_exporting', bool)
