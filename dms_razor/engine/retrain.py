# Copyright (c) dms_razor contributors. All rights reserved.
"""What the retrain config of a search is made from."""
import logging
from typing import Optional

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from dms_razor.subnet import RetrainConfig, SubnetError, standard_base
from dms_razor.subnet.retrain_config import read_config


def retrain_config(cfg: Config,
                   base: Optional[str] = None,
                   overrides: Optional[dict] = None,
                   from_search: bool = False) -> Optional[RetrainConfig]:
    """Find out what a search's subnet is to be retrained with.

    Args:
        cfg (Config): The search's config.
        base (str, optional): A config with another training recipe. Defaults
            to the standard config that ``cfg`` inherits.
        overrides (dict, optional): Other settings of the retrain config.
        from_search (bool): Start from the searched weights.

    Returns:
        RetrainConfig | None: None, with a warning, where no ``base`` is named
        and ``cfg`` inherits none.

    Raises:
        SubnetError: If ``base`` cannot be read or does not fit the network.
    """
    architecture = cfg.model.get('architecture')
    recipe = base is not None
    try:
        if not isinstance(architecture, dict):
            raise SubnetError('The architecture is not given as a config.')
        if 'cfg_path' in architecture:
            base = base or architecture['cfg_path']
            architecture = read_config(architecture['cfg_path'])['model']
        elif not recipe:
            if cfg.filename is None:
                raise SubnetError('The search has no config file.')
            base = standard_base(cfg.filename)
    except SubnetError as error:
        if recipe:
            raise
        print_log(
            f'There will be no retrain config: {error} Name the config to '
            'inherit as retrain_base of ExportSubnetHook.',
            logger='current',
            level=logging.WARNING)
        return None
    if isinstance(architecture, ConfigDict):
        architecture = architecture.to_dict()
    config = RetrainConfig(
        base,
        architecture,
        recipe=recipe,
        overrides=overrides or {},
        from_search=from_search)
    config.text()  # whatever is wrong with it is said now
    return config
