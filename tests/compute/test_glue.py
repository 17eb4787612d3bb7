"""The tab-separated files of GLUE's nine tasks, as token numbers of a small tokenizer."""

import json
import zipfile

import numpy as np
import pytest

from luigi_prune import registry
from luigi_prune.compute.data import Samples, load_raw
from luigi_prune.config.schema import Component
from luigi_prune.errors import ConfigError

transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "runs", "sleeps"]
FILES = {  # name: folder, test file, header, two rows; labels
    "CoLA": ("CoLA", "dev.tsv", None, ["x\t1\t\ta cat runs", "x\t0\t*\ta runs"], [1, 0]),
    "SST2": ("SST-2", "dev.tsv", "sentence\tlabel", ["a cat\t1", "a dog\t0"], [1, 0]),
    "MRPC": ("MRPC", "dev.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
             ["1\t7\t8\ta cat runs\ta \"cat sleeps", "0\t7\t8\ta dog\ta cat"], [1, 0]),
    "STSB": ("STS-B", "dev.tsv", "index\tgenre\tsentence1\tsentence2\tscore",
             ["0\tnews\ta cat runs\ta cat\t2.5", "1\tnews\ta dog\ta dog\t5.000"], [2.5, 5.0]),
    "QQP": ("QQP", "dev.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            ["0\t1\t2\ta cat runs\ta dog\t0", "1\t1\t2\ta cat\ta cat\t1"], [0, 1]),
    "MNLI": ("MNLI", "dev_matched.tsv", "index\tsentence1\tsentence2\tgold_label",
             ["0\ta cat runs\ta cat\tneutral", "1\ta cat\ta dog\tcontradiction"], [1, 2]),
    "QNLI": ("QNLI", "dev.tsv", "index\tquestion\tsentence\tlabel",
             ["0\ta cat runs\ta cat\tentailment", "1\ta\ta dog\tnot_entailment"], [0, 1]),
    "RTE": ("RTE", "dev.tsv", "index\tsentence1\tsentence2\tlabel",
            ["0\ta cat runs\ta cat\tnot_entailment", "1\ta cat\ta cat\tentailment"], [1, 0]),
    "WNLI": ("WNLI", "dev.tsv", "index\tsentence1\tsentence2\tlabel",
             ["0\ta cat runs\ta cat\t1", "1\ta cat\ta cat\t0"], [1, 0]),
}  # fmt: skip


@pytest.fixture(autouse=True)
def tokenizer(tmp_path):
    load_raw.cache_clear()
    folder = tmp_path / "glue" / "bert-base-cased"
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    yield folder
    load_raw.cache_clear()


def written(root, task):
    folder, test, header, rows, _ = FILES[task]
    path = root / folder / test
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows] if header else rows) + "\n", encoding="utf-8-sig")
    (path.parent / "train.tsv").write_text("\n".join([header, *rows] if header else rows) + "\n")
    return path


def read(name, split, folder, local=""):
    load_raw.cache_clear()
    return load_raw(name, split, str(folder), str(local))


@pytest.mark.parametrize("task", FILES)
def test_sentences_are_token_numbers_padded_to_one_length(tmp_path, task):
    written(tmp_path / "glue", task)
    source = read(f"Glue{task}", "test", tmp_path)
    x, y = Samples(source, [Component(type="ToTensor")]).get([0, 1])
    assert y.tolist() == FILES[task][4]
    assert x["labels"].tolist() == y.tolist()
    row = registry.find("dataset", f"Glue{task}")
    assert {key: value.shape[1:] for key, value in x.items()} == row.input_shape
    assert row.num_classes == {"STSB": None, "MNLI": 3}.get(task, 2)
    length = int(x["attention_mask"][0].sum())
    words = [WORDS[number] for number in x["input_ids"][0, :length]]
    assert words[:1] + words[-1:] == ["[CLS]", "[SEP]"]
    pair = len(FILES[task][3][0].split("\t")) > 4 or task in ("MNLI", "QNLI", "RTE", "WNLI")
    assert words.count("[SEP]") == (2 if pair else 1)
    assert bool(x["token_type_ids"].any()) == pair
    assert not x["input_ids"][0, length:].any()
    assert len(read(f"Glue{task}", "train", tmp_path)) == 2


def test_an_archive_of_a_task_is_unpacked(tmp_path):
    written(tmp_path / "source", "RTE")
    with zipfile.ZipFile(tmp_path / "RTE.zip", "w") as archive:
        for path in sorted((tmp_path / "source" / "RTE").iterdir()):
            archive.write(path, f"RTE/{path.name}")
    assert len(read("GlueRTE", "test", tmp_path, tmp_path / "local")) == 2
    assert len(read("GlueRTE", "test", tmp_path, tmp_path / "local")) == 2


def test_a_few_rows_without_all_columns_are_left_out_with_a_warning_but_not_many(tmp_path, caplog):
    path = written(tmp_path / "glue", "QQP")
    path.write_text(path.read_text() + "2\t1\t2\ta cat\ta cat\t1\n" * 200 + "3\tbroken\n")
    assert len(read("GlueQQP", "test", tmp_path)) == 202
    assert "1 rows without all columns are left out" in caplog.text
    path.write_text(path.read_text() + "3\tbroken\n" * 9)
    with pytest.raises(ConfigError, match=r"dev.tsv: damaged .*10 of 212 rows do not have 6 columns"):
        read("GlueQQP", "test", tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("index\tsentence1\tlabel\n0\ta\tentailment\n", "expected the columns sentence1, sentence2, label, got index"),
        (
            "index\tsentence1\tsentence2\tlabel\n0\ta\ta\tmaybe\n",
            "expected labels entailment, not_entailment, got 'maybe'",
        ),
        ("", "expected the columns"),
    ],
)
def test_malformed_files_are_one_line(tmp_path, content, words):
    path = written(tmp_path / "glue", "RTE")
    path.write_text(content)
    with pytest.raises(ConfigError) as error:
        read("GlueRTE", "test", tmp_path)
    assert words in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_missing_files_and_tokenizers_say_from_where_they_come(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match=r"GlueRTE is not in .*glue/RTE.*from https://gluebenchmark.com"):
        read("GlueRTE", "test", tmp_path)
    written(tmp_path / "glue", "RTE")
    for path in tokenizer.iterdir():
        path.unlink()
    tokenizer.rmdir()
    with pytest.raises(ConfigError, match=r"bert-base-cased: there is no such folder; .*https://huggingface.co"):
        read("GlueRTE", "test", tmp_path)


def test_labels_of_a_regression_are_floats(tmp_path):
    written(tmp_path / "glue", "STSB")
    assert read("GlueSTSB", "test", tmp_path).targets.dtype == np.float32
