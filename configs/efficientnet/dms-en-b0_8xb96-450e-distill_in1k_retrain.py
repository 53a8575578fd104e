# Copyright (c) dms_razor contributors. All rights reserved.
# timm's recipe for EfficientNet, with the trained supernet as teacher.
_base_ = './dms-en-b0_8xb96-450e_in1k_retrain.py'

model = dict(
    _delete_=True,
    type='DMSDistill',
    architecture=_base_.model,
    teacher_ckpt='work_dirs/efficientnet-b4-224_8xb96-450e_in1k/epoch_450.pth')
