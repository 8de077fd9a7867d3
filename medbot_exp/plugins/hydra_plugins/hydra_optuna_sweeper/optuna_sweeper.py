"""The place of hydra-optuna-sweeper's class: configs of its users spell it out in `hydra.sweeper._target_`.

Both packages are never installed together: that one wants another Optuna.
"""

from hydra_plugins.medbot_exp import OptunaSweeper as Sweeper


class OptunaSweeper(Sweeper):
    """Our sweeper under the name that those configs have."""
