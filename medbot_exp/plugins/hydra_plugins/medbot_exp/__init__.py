"""Hydra's plugins of this package: thin classes; what they do is imported when they do it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn


@dataclass
class GridConf:
    """hydra/sweeper=grid, with the keys of Hydra's own."""

    _target_: str = "hydra_plugins.medbot_exp.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridConf, provider="medbot_exp")


class GridSweeper(BasicSweeper):
    """Hydra's grid, each point checked before the first one runs, summed up in a table when the last one has."""

    def sweep(self, arguments: list[str]) -> Sequence[Sequence[JobReturn]]:
        from medbot_exp.report.grid import print_grid
        from medbot_exp.sweep import grid

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*self._parse_config(), *arguments])
        batches = self.split_arguments(overrides, self.max_batch_size)
        points = [point for batch in batches for point in batch]
        study = Path(self.config.hydra.sweep.dir)
        grid.check([loader.load_sweep_config(self.config, list(point)) for point in points])
        grid.claim(study, self.config)
        results: list[Sequence[JobReturn]] = []
        try:
            for batch in batches:
                results.append(self.launcher.launch(batch, initial_job_idx=sum(map(len, results))))
        finally:
            print_grid(study, len(points))
        grid.raise_failures(study, [result for batch in results for result in batch])
        return results
