# Copyright (c) dms_razor contributors. All rights reserved.
"""``DMSDistill``: a subnet that is retrained with a teacher.

The rows with ‡ of the paper's Tables 4 and 7. What it returns is MMRazor's
own ``SingleTeacherDistill`` around MMRazor's own distiller; here stands what
MMRazor leaves to the config.
"""
from typing import Any, Dict, Optional, Union

from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmrazor.models.algorithms import SingleTeacherDistill
from mmrazor.registry import MODELS as RAZOR_MODELS
from torch import nn

from ..errors import SubnetError, check_number, listed, refuse_beside
from ..subnet.weights import read_weights
from .algorithm import build_architecture
from .retrain_recipe import without_pretrained

_SUBNET = 'DMSSubModel'
_OPTIONAL = ('num_batches_tracked', )
"""Bookkeeping that older checkpoints lack and that carries no weights."""


# In mmengine's root registry a config finds it under any default scope; in
# MMRazor's it has its name among MMRazor's models.
@RAZOR_MODELS.register_module()
@MODELS.register_module()
def DMSDistill(
    architecture: Dict,
    teacher_ckpt: str,
    teacher: Optional[Dict] = None,
    tau: Optional[float] = None,
    loss_weight: Optional[float] = None,
    distiller: Optional[Dict] = None,
    data_preprocessor: Union[None, Dict, nn.Module] = None
) -> SingleTeacherDistill:
    """Build the distillation of a teacher into a subnet.

    The student's own loss stays, and a second is added to it:
    ``loss_weight * tau^2 * KL(teacher, student)`` of the logits, softened by
    ``tau`` and averaged over images. Validation and test run the student.
    The teacher is in eval mode whatever the runner says, which MMRazor does
    for its BatchNorm alone: with dropout and stochastic depth it would
    teach noise.

    Args:
        architecture (dict): The student, e.g. the model of a retrain.py:
            ``_base_.model``.
        teacher_ckpt (str): Checkpoint of the teacher, a file or web address.
        teacher (dict, optional): Model config of the teacher. Defaults to
            the supernet, which is the ``cfg`` of a ``DMSSubModel``.
        tau (float, optional): Temperature. Defaults to 1.
        loss_weight (float, optional): Weight of the second loss. Defaults to
            1.
        distiller (dict, optional): Another distiller, such as a
            ``mmrazor.ConfigurableDistiller`` with recorders of its own. By
            default the outputs of both networks' ``head``.
        data_preprocessor (dict | nn.Module, optional): Handed on to the
            student; the runner passes the config's top-level one.

    Returns:
        SingleTeacherDistill: Student and teacher are its ``architecture``
        and its ``teacher``.

    Raises:
        SubnetError: The checkpoint is not there or of another network.
        ValueError: No teacher is named or known, ``tau`` or ``loss_weight``
            are no such numbers, or stand beside a ``distiller``.
    """
    given = refuse_beside(
        'distiller', distiller, tau=tau, loss_weight=loss_weight)
    student = build_architecture(architecture, data_preprocessor)
    network = build_teacher(teacher or _supernet(architecture), teacher_ckpt)
    if distiller is None:
        for model in (student, network):
            if getattr(model, 'head', None) is None:
                raise ValueError(
                    f'A {type(model).__name__} has no head, whose outputs '
                    'DMSDistill would compare: give it a distiller= with '
                    'recorders and losses for this network')
        distiller = logits_distiller(**given)
    return SingleTeacherDistill(
        distiller=distiller, teacher=network, architecture=student)


def _supernet(architecture: Dict) -> Dict:
    """The model config that a subnet's was made from."""
    kind = architecture.get('type')
    if getattr(kind, '__name__', str(kind)).split('.')[-1] != _SUBNET:
        raise ValueError(
            f'The architecture of DMSDistill is a {kind} and no {_SUBNET}, so '
            'that its supernet is not known: give the model config of a '
            'teacher as teacher=')
    return architecture['cfg']


def logits_distiller(tau: float = 1., loss_weight: float = 1.) -> Dict:
    """MMRazor's config of a distiller between the outputs of two heads.

    Args:
        tau, loss_weight: See :func:`DMSDistill`.
    """
    check_number('tau of DMSDistill', tau, above=True)
    check_number('loss_weight of DMSDistill', loss_weight)
    # what a classification head of mmpretrain returns, whatever its layers
    # are called
    recorder = dict(type='mmrazor.ModuleOutputs', source='head')
    return dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=dict(logits=recorder),
        teacher_recorders=dict(logits=recorder),
        distill_losses=dict(
            loss_kl=dict(
                type='mmrazor.KLDivergence', tau=tau,
                loss_weight=loss_weight)),
        loss_forward_mappings=dict(
            loss_kl=dict(
                preds_S=dict(recorder='logits', from_student=True),
                preds_T=dict(recorder='logits', from_student=False))))


def build_teacher(cfg: Dict, checkpoint: str) -> BaseModel:
    """Build a trained network that always runs in eval mode.

    Args:
        cfg (dict): Its model config.
        checkpoint (str): Its weights, all of them.

    Raises:
        SubnetError: The checkpoint is not there or of another network.
    """
    model = MODELS.build(without_pretrained(cfg))
    weights = read_weights(checkpoint)
    try:
        # mmpretrain's networks rename and resize what older versions wrote
        found = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # names the shapes that differ
        raise _foreign(model, checkpoint, str(error)) from error
    missing = [
        name for name in found.missing_keys if not name.endswith(_OPTIONAL)
    ]
    # a deeper network holds all the names of a shallower one
    strange = [
        name for name in found.unexpected_keys
        if name.endswith(('.weight', '.bias'))
    ]
    if missing or strange:
        raise _foreign(
            model, checkpoint,
            '; '.join(f'{listed(names, 3)} {what}'
                      for names, what in ((missing, 'missing'),
                                          (strange, 'not expected')) if names))
    model.is_init = True  # so that init_weights leaves the weights
    model.register_forward_pre_hook(_in_eval_mode)
    return model


def _in_eval_mode(model: nn.Module, inputs: Any) -> None:
    """Run before each forward pass, since every ``train()`` undoes it."""
    model.eval()


def _foreign(model: nn.Module, checkpoint: str, why: str) -> SubnetError:
    return SubnetError(
        f'Checkpoint {checkpoint!r} is not of the teacher, a '
        f'{type(model).__name__}: {why}. Name as teacher_ckpt a checkpoint '
        "of the teacher's own training, or as teacher the config of the "
        "checkpoint's network.")
