"""Checks of data sets against each other and against the transforms of a training."""

from __future__ import annotations

from luigi_prune import registry
from luigi_prune.config.component_checks import find_row
from luigi_prune.config.key_names import SettingError
from luigi_prune.config.schema import Experiment

_TRANSFORMS = ("transforms_train", "transforms_test", "transforms_final")


def check_data(experiment: Experiment) -> None:
    """Raise SettingError for a test set in place of training data, and for transforms that its samples cannot pass.

    The names of data sets and transforms are known by now.
    """
    dataset = find_row("dataset", experiment.network.dataset, ("network", "dataset"))
    if dataset.test_only:
        raise SettingError(("network", "dataset"), f"{dataset.name} is a test set; name it in experiments.datasetTest")
    for index, name in enumerate(experiment.experiments.dataset_test):
        if find_row("dataset", name, ("experiments", "dataset_test", index)).masks != dataset.masks:
            with_masks, without = (dataset.name, registry.plain(name))[:: 1 if dataset.masks else -1]
            reason = f"the images of {with_masks} have masks, those of {without} have none"
            raise SettingError(("experiments", "dataset_test", index), reason)
    for section in ("training", "retraining"):
        for key in _TRANSFORMS:
            for index, component in enumerate(getattr(getattr(experiment, section), key)):
                path = (section, key, index, "type")
                row = find_row("transform", component.type, path)
                if row.masks and not dataset.masks:
                    reason = f"is for images with masks, which {dataset.name} does not have"
                    raise SettingError(path, f"{row.name} {reason}")
                if dataset.masks and not row.masks and not registry.is_foreign(str(row.path)):
                    raise SettingError(
                        path, f"{row.name} would change the images of {dataset.name} and not their masks; choose Seg..."
                    )
