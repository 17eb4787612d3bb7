"""Checks across the settings of one experiment, which also fill in names and colours."""

from __future__ import annotations

import itertools
import math
from fnmatch import fnmatchcase

from luigi_prune import registry
from luigi_prune.config.architecture import layers_and_embeddings, refusal
from luigi_prune.config.component_checks import check_keywords, check_training, find_row
from luigi_prune.config.data_checks import check_data
from luigi_prune.config.density_checks import check_density, is_density
from luigi_prune.config.key_names import KeyPath, SettingError, shown_key
from luigi_prune.config.method_labels import colors_of_methods, labels_of_methods
from luigi_prune.config.ratios import SpacingError, check_order, keep_ratios, spacing_notes, split_ratios
from luigi_prune.config.schema import Experiment, ExperimentsConfig
from luigi_prune.errors import ConfigError, nearest
from luigi_prune.registry.rows import wrong_channels

Notes = list[tuple[KeyPath, str]]

REFERENCE = "ReferenceNet"
SIZE_PRESERVING = {
    *("ToTensor", "Normalize", "RandomHorizontalFlip", "RandomVerticalFlip"),
    *("Grayscale", "RandomGrayscale", "ColorJitter", "RandomErasing"),
}
"""Transforms of an image to one of the same size."""
MAX_STEPS = 1_000_000
"""Maximum number of steps of all evaluated chains, whose keys take a minute; more are probably a typing error."""


def check_experiment(experiment: Experiment) -> tuple[Experiment, Notes]:
    """Return the experiment with names resolved and defaults filled in, and warnings for its author.

    Methods have their class names, ReferenceNet first; test sets, and names and colours of all methods are filled in.
    Raises SettingError for a setting that cannot work.
    """
    _check_network(experiment)
    settings = experiment.experiments
    methods = _methods(settings.methods)
    tests = _test_sets(experiment)
    notes = _check_ratios(settings)
    _check_number(settings, len(methods), len(tests))
    if methods == (REFERENCE,) and settings.mode != "train":
        text = f"has no method, so mode {settings.mode!r} prunes nothing and evaluates only the trained networks"
        notes.append((("experiments", "methods"), text))
    notes += _channel_notes(experiment)
    training, training_notes = check_training(experiment.training, "training")
    retraining, retraining_notes = check_training(experiment.retraining, "retraining")
    check_data(experiment)
    _check_epochs(experiment)
    _check_rewound(experiment)
    _check_ignored(experiment)
    _check_included(experiment)
    updates = {
        "training": training,
        "retraining": retraining,
        "experiments": settings.model_copy(update={"methods": methods, "dataset_test": tests}),
        "network_names": labels_of_methods(experiment.network_names, methods, settings.methods),
        "network_colors": colors_of_methods(experiment.network_colors, methods),
    }
    notes += [*training_notes, *retraining_notes]
    in_training = {(path[1:], text) for path, text in notes if path[0] == "training"}
    inherited = [note for note in notes if note[0][0] == "retraining" and (note[0][1:], note[1]) in in_training]
    return experiment.model_copy(update=updates), [note for note in notes if note not in inherited]


def _check_network(experiment: Experiment) -> None:
    network = experiment.network
    row = find_row("network", network.name, ("network", "name"))
    check_keywords(row, network.kwargs, ("network", "kwargs"))
    dataset = find_row("dataset", network.dataset, ("network", "dataset"))
    shape, training = dataset.input_shape, experiment.training
    names = {transform.type for transform in (*training.transforms_train, *training.transforms_final)}
    images = isinstance(shape, tuple) and len(shape) == 3 and all(isinstance(size, int) for size in shape)
    if images and min(shape[1:]) < row.smallest and names <= SIZE_PRESERVING:
        raise SettingError(
            ("network", "name"),
            f"{row.name} needs images of at least {row.smallest}x{row.smallest}, but those of {dataset.name} are "
            f"{shape[1]}x{shape[2]}; pad or resize them in the transforms, or choose another network",
        )
    if images and row.channels not in (None, shape[0]) and names <= SIZE_PRESERVING - {"Grayscale"}:
        raise SettingError(("network", "name"), f"{row.name} {wrong_channels(row.channels, shape[0])}")
    only_in_library = row.open_ended and not registry.is_foreign(network.name) and (network.kwargs or ":" in row.name)
    if only_in_library and (reason := refusal(experiment)):
        key, _, text = reason.partition(": ")
        raise SettingError(("network", "kwargs" if key.startswith("network.kwargs") else "name"), text)
    check_density(experiment)
    if dataset.num_classes not in (None, network.output_size) and not is_density(experiment):
        raise SettingError(
            ("network", "output_size"),
            f"{dataset.name} has {dataset.num_classes} classes, so {network.output_size} outputs do not fit",
        )


def _methods(methods: tuple[str, ...]) -> tuple[str, ...]:
    """Return the class names of the methods, ReferenceNet first; raises SettingError for a duplicate."""
    names: list[str] = []
    for index, method in enumerate(methods):
        path = ("experiments", "methods", index)
        row = find_row("method", method, path)
        name = method if registry.is_foreign(method) else row.name
        if name in names:
            raise SettingError(path, f"the method {registry.plain(name)} appears twice")
        names.append(name)
    return (REFERENCE, *(name for name in names if name != REFERENCE))


def _test_sets(experiment: Experiment) -> tuple[str, ...]:
    """Return the test sets; each must have as many classes as the network has outputs, unless it is a density."""
    tests = experiment.experiments.dataset_test or (experiment.network.dataset,)
    density = is_density(experiment)
    for index, name in enumerate(tests):
        path = ("experiments", "dataset_test", index)
        row = find_row("dataset", name, path)
        if row.num_classes not in (None, experiment.network.output_size) and not density:
            raise SettingError(
                path,
                f"{row.name} has {row.num_classes} classes, "
                f"but the network has {experiment.network.output_size} outputs",
            )
        if name in tests[:index]:
            raise SettingError(path, f"the test set {row.name} appears twice")
    return tests


def _check_ratios(settings: ExperimentsConfig) -> Notes:
    """Return notes on the spacings; raises SettingError for invalid ratios."""
    plotting = settings.plotting
    if plotting.min_val > plotting.max_val:
        raise SettingError(
            ("experiments", "plotting", "min_val"), f"minVal {plotting.min_val:g} is above maxVal {plotting.max_val:g}"
        )
    path: KeyPath = ("experiments", "spacing")
    if not settings.spacing and settings.mode != "train":
        raise SettingError(path, f"mode {settings.mode!r} needs at least one spacing")
    try:
        ratios = keep_ratios(settings.spacing)
    except SpacingError as error:
        inner: KeyPath = (error.index, error.key) if error.key else (error.index,)
        raise SettingError((*path, *inner), error.reason) from None
    try:
        check_order(ratios, settings.mode)
    except ConfigError as error:
        raise SettingError(path, str(error)) from None
    try:
        _retrained(settings)
    except ConfigError as error:
        raise SettingError(("experiments", "retrain_iterations"), str(error)) from None
    return [((*path, index), text) for index, text in spacing_notes(settings.spacing)]


def _check_number(settings: ExperimentsConfig, methods: int, tests: int) -> None:
    """Raise SettingError for more than MAX_STEPS steps in all evaluated chains, at the key that contributes most."""
    training_only = settings.mode == "train"
    lengths = [len(earlier) + 1 for _, earlier in _retrained(settings)] or [1]
    if "cascade" in settings.mode:
        lengths = list(itertools.accumulate(lengths))  # a chain repeats the steps of the previous ratio
    factors = {
        "num_nets": settings.num_nets,
        "num_repetitions": 1 if training_only else settings.num_repetitions,
        "methods": 1 if training_only else methods,
        "dataset_test": tests,
        "spacing": sum(lengths),
    }
    if (number := math.prod(factors.values())) > MAX_STEPS:
        largest = max(factors, key=factors.__getitem__)
        names = {**{key: shown_key(key) for key in factors}, "spacing": f"steps to {len(lengths)} ratios"}
        product = " x ".join(f"{count} ({names[key]})" for key, count in factors.items())
        raise SettingError(("experiments", largest), f"{product} = {number} steps; at most {MAX_STEPS} are allowed")


def _retrained(settings: ExperimentsConfig) -> list[tuple[float, tuple[float, ...]]]:
    return split_ratios(keep_ratios(settings.spacing), settings.retrain_iterations, settings.mode)


def _channel_notes(experiment: Experiment) -> Notes:
    """Return notes on normalisations that do not match the data set's channels, which other transforms may change."""
    dataset = registry.find("dataset", experiment.network.dataset)
    shape = dataset.input_shape
    if not isinstance(shape, tuple) or not shape or not isinstance(channels := shape[0], int):
        return []  # unknown, or several inputs
    return [
        ((section, name, index), f"normalises {len(mean)} channels, but {dataset.name} has {channels}")
        for section in ("training", "retraining")
        for name in ("transforms_train", "transforms_test", "transforms_final")
        for index, transform in enumerate(getattr(getattr(experiment, section), name))
        if transform.type == "Normalize"
        and isinstance(mean := transform.kwargs.get("mean"), list)
        and len(mean) not in (1, channels)
    ]


def _check_epochs(experiment: Experiment) -> None:
    """Raise SettingError if retraining starts after its end, or rewinds to an epoch that training never reaches."""
    start, end = experiment.retraining.start_epoch, experiment.retraining.num_epochs
    path = ("retraining", "start_epoch")
    if start > end:
        raise SettingError(path, f"retraining cannot start at epoch {start}: it has {end} epochs")
    if experiment.experiments.mode == "cascade-rewind" and start > experiment.training.num_epochs:
        raise SettingError(
            path, f"weights cannot be rewound to epoch {start}: training has {experiment.training.num_epochs} epochs"
        )


def _check_rewound(experiment: Experiment) -> None:
    """Raise SettingError for a method whose fresh weights rewinding would replace by the early ones."""
    settings = experiment.experiments
    for index, method in enumerate(settings.methods if settings.mode == "cascade-rewind" else ()):
        if registry.find("method", method).reinitialised:
            text = f"{method} draws weights anew, which mode cascade-rewind overwrites; use mode retrain or cascade"
            raise SettingError(("experiments", "methods", index), text)


def _check_ignored(experiment: Experiment) -> None:
    """Raise SettingError for an ignored layer that does not exist, or if no layer is left to prune."""
    patterns = experiment.experiments.ignore_layers
    found = layers_and_embeddings(experiment) if patterns else None
    if found is None or not (layers := found[0]):
        return
    for index, pattern in enumerate(patterns):
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            path = ("experiments", "ignore_layers", index)
            network = registry.plain(experiment.network.name)
            raise SettingError(path, f"{network} has no compressible layer {pattern!r}{nearest(pattern, layers)}")
    if all(any(fnmatchcase(layer, pattern) for pattern in patterns) for layer in layers):
        raise SettingError(("experiments", "ignore_layers"), f"leaves none of the {len(layers)} layers to prune")


def _check_included(experiment: Experiment) -> None:
    """Raise SettingError for an embedding that does not exist, and for methods and rules that prune none."""
    settings = experiment.experiments
    path: tuple[str | int, ...] = ("experiments", "include_layers")
    if not settings.include_layers:
        return
    if settings.rules == "reference":
        raise SettingError(path, "`rules: reference` prunes no embeddings")
    for name in settings.methods:
        if why := registry.METHODS[name].no_embeddings:
            raise SettingError(path, f"{registry.plain(name)} {why}; ThresNet prunes them")
    if (found := layers_and_embeddings(experiment)) is None:
        return
    for index, pattern in enumerate(settings.include_layers):
        if not any(fnmatchcase(name, pattern) for name in found[1]):
            network = registry.plain(experiment.network.name)
            raise SettingError((*path, index), f"{network} has no embedding {pattern!r}{nearest(pattern, found[1])}")
