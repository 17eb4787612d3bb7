"""`api.load`: a network from any file that holds one, or from an experiment by its method and ratio."""

from __future__ import annotations

import warnings
from pathlib import Path

from torch import nn

from luigi_prune import registry
from luigi_prune.api.compacted import COMPACTED, Compacted, read_compacted
from luigi_prune.api.exported_state import STATES, ExportedNetwork, read_exported
from luigi_prune.api.finished import FinishedNetwork, network_of, read_finished
from luigi_prune.api.pruned import FAMILY, Pruned, read_pruned
from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.config.schema import Directories, Experiment
from luigi_prune.errors import ConfigError, nearest
from luigi_prune.identity import keys, paths
from luigi_prune.identity.spec import REFERENCE, base_specs, chain_specs, experiment_spec
from luigi_prune.results.hdf5_file import read_result
from luigi_prune.workflow.settings import directories_for, on_this_machine

_EXPERIMENTS = (".yaml", ".yml")
Loaded = Pruned | Compacted | FinishedNetwork | ExportedNetwork


def load(
    path: str | Path,
    network: nn.Module | None = None,
    *,
    method: str | None = None,
    keep_ratio: float | None = None,
    net: int = 0,
    repetition: int = 0,
    retrained: bool = True,
    member: str | None = None,
) -> Loaded:
    """Return the network of a file.

    path: an experiment file (.yaml), for the network of `method` at the ratio closest to `keep_ratio`, without a method
        the trained one; a result of an experiment (.h5); a file of `Pruned.save` or `Compacted.save`; or weights
        written by the command `export` (.safetensors, .pt).
    network: the unpruned architecture, for files of `save`, which do not contain it; it is not changed.
    net, repetition: of the experiment. retrained: False for the network before the retraining of its last step.
    member: the name of one experiment of a file with a sweep.

    Networks of experiments come with masks held, an example input, transforms, quality and provenance
    (`FinishedNetwork`). Raises FileNotFoundError, DamagedResult if a checksum does not match, ConfigError for a file
    without a network, for one that does not match, and for a network that is not computed yet.
    """
    path = Path(path)
    if path.suffix in _EXPERIMENTS:
        if network is not None:
            raise ConfigError(f"{path}: an experiment has its own network; leave out `network`")
        return _of_experiment(path, method, keep_ratio, net, repetition, retrained, member)
    if method is not None or keep_ratio is not None or member is not None:
        raise ConfigError(
            f"{path}: method, keep_ratio and member choose from an experiment file (.yaml); this file has one network"
        )
    if path.suffix in STATES:
        return read_exported(path, network)
    result = read_result(path)
    if result.family in (FAMILY, COMPACTED):
        if network is None:
            raise ConfigError(f"{path}: the file has no code: pass the unpruned architecture, api.load(path, network)")
        return (read_pruned if result.family == FAMILY else read_compacted)(result, path, network)
    result, source = network_of(result, path)
    if network is not None:
        raise ConfigError(
            f"{path}: got a {result.family!r} result of an experiment, which has its own network; leave out `network`"
        )
    return read_finished(result, source, on_this_machine(Directories()))


def _of_experiment(
    path: Path, method: str | None, keep_ratio: float | None, net: int, repetition: int, retrained: bool,
    member: str | None,
) -> FinishedNetwork:  # fmt: skip
    experiment = _member(path, load_experiments(path), member)
    directories = directories_for(experiment)
    source, chosen = result_of(experiment, directories, path, method, keep_ratio, net, repetition, retrained)
    if chosen is not None and keep_ratio is not None and abs(chosen - keep_ratio) > 1e-9:
        warnings.warn(
            f"{path}: keep ratio {keep_ratio:.4g} is not in the experiment; the closest is {chosen:.4g}",
            UserWarning,
            stacklevel=3,
        )
    return read_finished(read_result(source), source, directories)


def _member(path: Path, experiments: list[Experiment], name: str | None) -> Experiment:
    by_name = {experiment.name: experiment for experiment in experiments}
    if name is None and len(by_name) == 1:
        return experiments[0]
    if name not in by_name:
        raise ConfigError(
            f"{path}: it has {len(by_name)} experiments; choose one by `member`{nearest(name or '', by_name)}"
        )
    return by_name[name]


def result_of(
    experiment: Experiment, directories: Directories, path: Path, method: str | None, keep_ratio: float | None,
    net: int, repetition: int, retrained: bool,
) -> tuple[Path, float | None]:  # fmt: skip
    """Return the result file of one network of an experiment, and its keep ratio; raises ConfigError without one."""
    grid = experiment_spec(experiment)
    for name, value, count in (("net", net, grid.num_nets), ("repetition", repetition, grid.num_repetitions)):
        if not 0 <= value < count:
            raise ConfigError(f"{path}: {name}: the experiment has {name}s 0 to {count - 1}, got {value}")
    base = base_specs(experiment)[net]
    full = REFERENCE if method is None else registry.resolve_name("method", method, path.parent)
    if full not in (*grid.methods, REFERENCE):
        names = [registry.plain(each) for each in grid.methods]
        raise ConfigError(f"{path}: method: the experiment has no {method!r}{nearest(str(method), names)}")
    chains = chain_specs(experiment, base, full, repetition)
    if not chains:
        if keep_ratio is not None and keep_ratio != 1:
            raise ConfigError(f"{path}: give a method: only those have keep ratios")
        return _existing(path, paths.trained_path(directories, base, keys.train_key(base))), None
    if keep_ratio is None:
        ratios = ", ".join(f"{chain.keep_ratio:.4g}" for chain in chains)
        raise ConfigError(f"{path}: give a keep_ratio; the experiment has {ratios}")
    chain = min(chains, key=lambda each: abs(each.keep_ratio - keep_ratio))
    wanted = chain if retrained else chain.pruned()
    return _existing(path, paths.chain_path(directories, wanted, keys.chain_key(wanted))), chain.keep_ratio


def _existing(config: Path, result: Path) -> Path:
    if not result.is_file():
        raise ConfigError(
            f"{config}: this network is not computed yet ({result} is missing); run "
            f"`luigi --module luigi_prune RunExperiment --config {config}` first"
        )
    return result
