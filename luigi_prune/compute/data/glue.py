"""GLUE's nine tasks, from the tab-separated files of gluebenchmark.com, as dictionaries of token numbers.

`<training data>/glue/<folder>/train.tsv` and `dev.tsv`, and the tokenizer's files in
`<training data>/glue/bert-base-cased/`. Inputs contain the labels, too: a network of transformers then returns its loss
beside the logits, which the loss LossFromInput reads.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from luigi_prune.compute.data.data_files import DataFolder, folder_root
from luigi_prune.compute.data.data_sources import RawData, damaged
from luigi_prune.errors import ConfigError

log = logging.getLogger(__name__)

LENGTH = 128  # tokens, padded or cut
TOKENIZER = "bert-base-cased"
_ROOT = Path("glue")
_SOURCE = "https://gluebenchmark.com/tasks"
_TOKENIZER_SOURCE = f"https://huggingface.co/google-bert/{TOKENIZER} (tokenizer.json, tokenizer_config.json, vocab.txt)"
_TOLERATED = 0.01  # share of rows without all columns: QQP's files have a few


@dataclass(frozen=True)
class _Task:
    folder: str
    texts: tuple[str | int, ...]  # columns by name, or by place if the file has no header
    label: str | int
    labels: tuple[str, ...] = ("0", "1")  # () for a regression
    test: str = "dev.tsv"


_ENTAILED = ("entailment", "not_entailment")
_TASKS = {
    "CoLA": _Task("CoLA", (3,), 1),
    "SST2": _Task("SST-2", ("sentence",), "label"),
    "MRPC": _Task("MRPC", ("#1 String", "#2 String"), "Quality"),
    "STSB": _Task("STS-B", ("sentence1", "sentence2"), "score", ()),
    "QQP": _Task("QQP", ("question1", "question2"), "is_duplicate"),
    "MNLI": _Task("MNLI", ("sentence1", "sentence2"), "gold_label", ("entailment", "neutral", "contradiction"),
                  "dev_matched.tsv"),
    "QNLI": _Task("QNLI", ("question", "sentence"), "label", _ENTAILED),
    "RTE": _Task("RTE", ("sentence1", "sentence2"), "label", _ENTAILED),
    "WNLI": _Task("WNLI", ("sentence1", "sentence2"), "label"),
}  # fmt: skip


def read_glue(name: str, split: str, training_data: str, local_data: str) -> RawData:
    """Return token numbers, masks and labels of a task; test are its development sentences, whose labels are known."""
    task = _TASKS[name.removeprefix("Glue")]
    folder = DataFolder(name, _ROOT / task.folder, (Path(f"{task.folder}.zip"), _ROOT / f"{task.folder}.zip"), _SOURCE)
    path = _task_folder(folder, training_data, local_data) / ("train.tsv" if split == "train" else task.test)
    columns = read_columns(path, task.texts, task.label)
    labels = _numbers(path, columns.pop(), task.labels)
    tokens = _tokenizer(training_data, local_data)(*columns)
    inputs = {key: np.asarray(tokens[key], dtype=np.int64) for key in sorted(tokens, reverse=True)}
    return RawData({**inputs, "labels": labels}, labels)


def _task_folder(folder: DataFolder, training_data: str, local_data: str) -> Path:
    """Return the folder of a task; archives of tasks unpack to a folder without `glue`."""
    for root in (local_data, training_data):
        if root and (Path(root).expanduser() / folder.path.name).is_dir():
            return Path(root).expanduser() / folder.path.name
    in_archive = DataFolder(folder.name, Path(folder.path.name), folder.archives, folder.source)
    if any((Path(training_data).expanduser() / archive).is_file() for archive in folder.archives):
        return folder_root(in_archive, training_data, local_data) / in_archive.path
    return folder_root(folder, training_data, local_data) / folder.path


def read_columns(path: Path, texts: tuple[str | int, ...], label: str | int) -> list[list[str]]:
    """Return the columns of a tab-separated file: the texts, then the labels.

    Rows without all columns are left out with a warning; raises ConfigError if they are more than a few.
    """
    wanted = (*texts, label)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise damaged(path, error) from error
    if not isinstance(label, int):
        header = rows.pop(0) if rows else []
        missing = [name for name in wanted if name not in header]
        if missing:
            raise damaged(path, f"expected the columns {', '.join(map(str, wanted))}, got {', '.join(header[:12])}")
        wanted = tuple(header.index(str(name)) for name in wanted)
    places = [int(place) for place in wanted]
    whole = [row for row in rows if len(row) > max(places)]
    if len(whole) < (1 - _TOLERATED) * len(rows) or not whole:
        raise damaged(path, f"{len(rows) - len(whole)} of {len(rows)} rows do not have {max(places) + 1} columns")
    if len(whole) < len(rows):
        log.warning("%s: %d rows without all columns are left out", path, len(rows) - len(whole))
    return [[row[place] for row in whole] for place in places]


def _numbers(path: Path, labels: list[str], names: tuple[str, ...]) -> np.ndarray:
    """Return the labels as class numbers, or as floats (samples,) for a regression."""
    number = {name: place for place, name in enumerate(names)}
    try:
        if not names:
            return np.array([float(label) for label in labels], dtype=np.float32)
        return np.array([number[label] for label in labels], dtype=np.int64)
    except (KeyError, ValueError) as error:
        raise damaged(path, f"expected labels {', '.join(names) or 'that are numbers'}, got {error}") from error


def _tokenizer(training_data: str, local_data: str) -> Callable[..., dict[str, Any]]:
    """Return a function of one or two lists of texts; raises ConfigError if the tokenizer's files are missing."""
    try:
        from transformers import AutoTokenizer  # optional, and slow to import
    except ImportError as error:
        raise ConfigError("GLUE needs the package transformers; pip install 'luigi-prune[transformers]'") from error
    roots = [Path(root).expanduser() / _ROOT / TOKENIZER for root in (local_data, training_data) if root]
    folder = next((root for root in roots if root.is_dir()), None)
    if folder is None:
        raise ConfigError(f"{roots[-1]}: there is no such folder; put the tokenizer there, from {_TOKENIZER_SOURCE}")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise damaged(folder, error) from error
    length = min(LENGTH, tokenizer.model_max_length)

    def tokens(*texts: list[str]) -> dict[str, Any]:
        return dict(tokenizer(*texts, padding="max_length", max_length=length, truncation=True))

    return tokens
