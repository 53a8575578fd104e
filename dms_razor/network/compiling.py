# Copyright (c) dms_razor contributors. All rights reserved.
"""Whether what runs is read by torch.compile, or by torch.export."""
import torch

#: Of PyTorch itself; in 2.1 ``torch.compiler`` does not have it yet.
compiling = getattr(torch.compiler, 'is_compiling',
                    None) or torch._utils.is_compiling
#: From 2.7 on; where it is missing, always False.
exporting = getattr(torch.compiler, 'is_exporting', bool)
