"""Checks of networks for densities, and of those for vectors, against the data set, losses and metrics."""

from __future__ import annotations

from luigi_prune import registry
from luigi_prune.config.component_checks import find_row
from luigi_prune.config.key_names import KeyPath, SettingError
from luigi_prune.config.schema import Experiment
from luigi_prune.errors import ConfigError
from luigi_prune.registry import DatasetRow, KindName, NetworkRow


def is_density(experiment: Experiment) -> bool:
    """Return whether the network is trained as a density, so that classes have no meaning."""
    network, loss = experiment.network, experiment.training.loss
    return find_row("network", network.name, ("network", "name")).density or (
        registry.is_foreign(network.name) and find_row("loss", loss, ("training", "loss")).density
    )


def check_density(experiment: Experiment) -> None:
    """Raise SettingError for a density with labels' losses or metrics, the reverse, and for inputs of a wrong kind."""
    network = find_row("network", experiment.network.name, ("network", "name"))
    dataset = find_row("dataset", experiment.network.dataset, ("network", "dataset"))
    if network.vectors:
        _check_vectors(experiment, network, dataset)
    elif network.smallest > 1 and isinstance(dataset.input_shape, tuple) and len(dataset.input_shape) == 1:
        reason = f"{network.name} takes images, but inputs of {dataset.name} are vectors"
        raise SettingError(("network", "name"), reason)
    density = is_density(experiment)
    if not dataset.labelled and not density:
        reason = f"{dataset.name} has no labels, so only a density can be learned, such as ffjord_l4_h64_sigmoid_da"
        raise SettingError(("network", "dataset"), reason)
    for section in ("training", "retraining"):
        training = getattr(experiment, section)
        named: list[tuple[KeyPath, KindName, str]] = [(("loss",), "loss", training.loss)]
        if section == "training":
            named += [(("metrics_test", i, "type"), "metric", m.type) for i, m in enumerate(training.metrics_test)]
        for path, kind, name in named:
            row = find_row(kind, name, (section, *path))
            if registry.is_foreign(name) or row.density == density or getattr(row, "placeholder", False):
                continue
            ending = "Loss" if kind == "loss" else ""
            choices = f"choose NLLPrior{ending}, NLLNats{ending} or NLLBits{ending}"
            raise SettingError(
                (section, *path),
                f"{row.name} reads predictions of targets, but {network.name} is a density; {choices}"
                if density
                else f"{row.name} reads the output of a flow, but {registry.plain(network.name)} is not a density",
            )


def _check_vectors(experiment: Experiment, network: NetworkRow, dataset: DatasetRow) -> None:
    shape, outputs = dataset.input_shape, experiment.network.output_size
    if shape is None:
        return
    if not isinstance(shape, tuple) or len(shape) != 1:
        raise SettingError(
            ("network", "name"), f"{network.name} takes vectors, but inputs of {dataset.name} have the shape {shape}"
        )
    if outputs != shape[0]:
        raise SettingError(
            ("network", "output_size"),
            f"{network.name} moves its input, so it has as many outputs as {dataset.name} has features, {shape[0]}, "
            f"not {outputs}",
        )


def features_of(network: object, dataset: object) -> int | None:
    """Return the number of features, and so of outputs, if the named network takes vectors; None if that is unknown."""
    try:
        vectors = isinstance(network, str) and registry.find("network", network).vectors
        shape = registry.find("dataset", dataset).input_shape if vectors and isinstance(dataset, str) else None
    except ConfigError:  # reported by the checks of names
        return None
    return shape[0] if isinstance(shape, tuple) and len(shape) == 1 else None
