"""What luigi.cfg asks of SLURM: what it means, and what it cannot mean."""

from __future__ import annotations

from collections.abc import Callable

import luigi.configuration
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from luigi.configuration.cfg_parser import LuigiConfigParser

from luigi_prune.errors import ConfigError
from luigi_prune.execution.slurm.options import FAMILIES, KEYS, PARALLEL, Resources, SlurmSettings, read_settings
from luigi_prune.workflow.settings import compute_settings


def settings(threads: int = 1, loader_workers: int = 0, **sections: dict[str, str]) -> SlurmSettings:
    """Return the settings of sections; `slurm_Prune` stands for [slurm.Prune]."""
    named = {name.replace("_", "."): section for name, section in sections.items()}
    return read_settings(named, threads, loader_workers)


def sbatch(family: str = "Prune", **sections: dict[str, str]) -> dict[str, str]:
    """Return the further options of sbatch that a family's jobs get."""
    return dict(settings(**sections).resources[family].sbatch)


def refusal(**sections: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(**sections)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_section_every_family_gets_one_process_without_a_gpu():
    found = settings()
    assert found == SlurmSettings()
    assert set(found.resources) == set(FAMILIES)
    assert found.resources["Retrain"].processes == 1
    assert found.resources["Retrain"].gpus == 0


def test_a_process_gets_a_cpu_per_thread_and_per_loader_unless_somebody_says_otherwise():
    assert settings(3, 2).resources["Prune"].cpus_per_task == 5
    assert settings(0, 0).resources["Prune"].cpus_per_task == 1
    assert settings(3, 2, slurm={"cpus_per_task": "4"}).resources["Prune"].cpus_per_task == 4


def test_a_familys_section_goes_over_the_common_one_key_by_key():
    found = settings(
        slurm={"mem_gb": "8", "timeout_min": "30", "partition": "main", "setup": "module load a\n\n  module load b"},
        slurm_Retrain={"mem_gb": "1.5", "partition": "gpu", "python": "singularity exec x.sif python"},
    ).resources
    assert (found["Prune"].mem_gb, found["Retrain"].mem_gb) == (8, 1.5)
    assert (found["Prune"].timeout_min, found["Retrain"].timeout_min) == (30, 30)
    assert (dict(found["Prune"].sbatch), dict(found["Retrain"].sbatch)) == ({"partition": "main"}, {"partition": "gpu"})
    assert found["Prune"].setup == ("module load a", "  module load b")
    assert (found["Prune"].python, found["Retrain"].python) == ("", "singularity exec x.sif python")


def test_families_with_equal_resources_can_share_an_array():
    found = settings(slurm={"mem_gb": "8"}, slurm_Evaluate={"mem_gb": "8.0"}).resources
    assert found["Prune"] == found["Evaluate"]
    assert hash(found["Prune"]) == hash(found["Evaluate"])


def test_one_process_per_gpu_and_gpus_for_those_that_can_use_them():
    found = settings(slurm={"gpus_per_node": "4", "nodes": "2"}).resources
    for family in PARALLEL:
        assert (found[family].processes, found[family].gpus) == (8, 8)
    for family in ("Prune", "Evaluate"):
        assert (found[family].nodes, found[family].processes, found[family].gpus) == (1, 1, 1)
    several = settings(slurm_TrainBase={"gpus_per_node": "2", "processes_per_node": "6"}).resources["TrainBase"]
    assert (several.processes, several.gpus) == (6, 2)


@pytest.mark.parametrize("key", ["nodes", "processes_per_node", "gpus_per_node"])
def test_only_trainings_can_ask_for_several_processes_and_others_are_told_so(key: str):
    message = refusal(slurm_Evaluate={key: "2"})
    assert f"[slurm.Evaluate] {key}: 2" in message
    assert "TrainBase and Retrain" in message
    assert settings(slurm={key: "2"}, slurm_Evaluate={key: "1"}).resources["Evaluate"].processes == 1


def test_a_section_that_asks_for_nothing_wrong_is_not_blamed_for_the_common_one():
    found = settings(slurm={"gpus_per_node": "4", "nodes": "2"}, slurm_Prune={"nodes": "1", "gpus_per_node": "0"})
    assert found.resources["Prune"].gpus == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("slurm_Retrian", "did you mean 'Retrain'?"),
        ("slurm_prune", "did you mean 'Prune'?"),
        ("slurm_Report", "choose from Evaluate, Prune, Retrain, TrainBase"),
        ("slurm_", "choose from"),
    ],
)
def test_a_section_of_no_family_is_refused(name: str, words: str):
    message = refusal(**{name: {"mem_gb": "1"}})
    assert message.startswith(f"luigi.cfg: [{name.replace('_', '.')}]: ")
    assert words in message


@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("time", "timeout_min"),
        ("mem", "mem_gb"),
        ("ntasks_per_node", "processes_per_node"),
        ("signal", "signal_delay_s"),
        ("array", "array_size"),
        ("gpus", "gpus_per_node"),
        ("job-name", ""),
        ("output", ""),
    ],
)
def test_what_this_package_says_to_sbatch_itself_is_refused_with_the_key_to_use(key: str, instead: str):
    message = refusal(slurm={key: "1"})
    assert message.startswith(f"luigi.cfg: [slurm] {key}: ")
    assert message.endswith(f"use {instead}" if instead else "luigi_prune sets it itself")
    assert not instead or instead in KEYS


@pytest.mark.parametrize("key", ["array_size", "poll_seconds", "on_interrupt", "grace-seconds"])
def test_what_holds_for_the_driver_belongs_into_the_common_section(key: str):
    message = refusal(slurm_Prune={key: "1"})
    assert f"[slurm.Prune] {key}: " in message
    assert "set it in [slurm]" in message


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("timeout_mins", "timeout_min"),
        ("poll_second", "poll_seconds"),
        ("gpu_per_node", "gpus_per_node"),
        ("partiton", "partition"),
        ("Partition", "partition"),
        ("NODES", "nodes"),
    ],
)
def test_a_misspelt_key_is_told_from_an_option_of_sbatch(key: str, meant: str):
    message = refusal(slurm={key: "1"})
    assert message.startswith(f"luigi.cfg: [slurm] {key}: ")
    assert message.endswith(f"did you mean {meant!r}?")


@pytest.mark.parametrize(
    ("key", "text", "kind"),
    [
        ("nodes", "0", "whole number of at least 1"),
        ("nodes", "1.5", "whole number of at least 1"),
        ("cpus_per_task", "two", "whole number of at least 1"),
        ("timeout_min", "1:00:00", "whole number of at least 1"),
        ("timeout_min", "", "whole number of at least 1"),
        ("signal_delay_s", "-1", "whole number of at least 0"),
        ("mem_gb", "16G", "number of at least 0.01"),
        ("mem_gb", "nan", "number of at least 0.01"),
        ("poll_seconds", "inf", "number of at least 0.1"),
        ("array_size", "-1", "whole number of at least 0"),
    ],
)
def test_a_wrong_number_is_named_with_what_it_should_be(key: str, text: str, kind: str):
    assert refusal(slurm={key: text}) == f"luigi.cfg: [slurm] {key}: {text!r} is not a {kind}"


def test_a_wrong_number_is_looked_for_where_it_stands():
    assert refusal(slurm={"mem_gb": "1"}, slurm_Prune={"mem_gb": "x"}).startswith("luigi.cfg: [slurm.Prune] mem_gb")
    assert refusal(slurm={"mem_gb": "x"}, slurm_Prune={"nodes": "1"}).startswith("luigi.cfg: [slurm] mem_gb")


def test_further_options_of_sbatch_go_through_as_they_are():
    found = sbatch(slurm={"reservation": "friday", "gpu-bind": "closest", "kill_on_invalid_dep": "yes", "nice": "10"})
    assert found == {"reservation": "friday", "gpu-bind": "closest", "kill-on-invalid-dep": "yes", "nice": "10"}


def test_true_is_an_option_without_a_value_and_false_takes_one_away():
    common = {"exclusive": "True", "hold": "true", "overcommit": "false", "comment": ""}
    assert sbatch(slurm=common) == {"exclusive": "true", "hold": "true"}
    assert sbatch(slurm=common, slurm_Prune={"exclusive": "false"}) == {"hold": "true"}
    assert sbatch("Retrain", slurm=common, slurm_Prune={"exclusive": "false"}) == {"exclusive": "true", "hold": "true"}


@pytest.mark.parametrize("said", [{"requeue": "false"}, {"requeue": "False"}, {"no_requeue": "true"}])
def test_jobs_are_requeued_unless_somebody_forbids_it(said: dict[str, str]):
    assert sbatch(slurm={"requeue": "true"}) == sbatch(slurm={"no-requeue": "false"}) == {}
    assert sbatch(slurm=said) == {"no-requeue": "true"}
    assert sbatch(slurm=said, slurm_Prune={"requeue": "true"}) == {}
    assert sbatch(slurm={"requeue": "true"}, slurm_Prune=said) == {"no-requeue": "true"}


def test_dashes_are_as_good_as_underscores_but_not_both():
    assert settings(slurm={"cpus-per-task": "3"}).resources["Prune"].cpus_per_task == 3
    assert settings(slurm={"gather-seconds": "7"}).gather_seconds == 7
    message = refusal(slurm={"cpus_per_task": "3", "cpus-per-task": "4"})
    assert "[slurm] cpus-per-task: is already set as cpus_per_task" in message


def test_the_signal_comes_before_the_time_limit():
    assert settings(slurm={"timeout_min": "60"}).resources["Prune"].signal_delay_s == 120
    assert settings(slurm={"timeout_min": "1"}).resources["Prune"].signal_delay_s == 15  # a job of a minute does work
    message = refusal(slurm={"signal_delay_s": "300"}, slurm_Prune={"timeout_min": "5"})
    assert message.startswith("luigi.cfg: [slurm] signal_delay_s: 300 s")
    assert "Prune" in message
    assert refusal(slurm_Prune={"signal_delay_s": "60", "timeout_min": "1"}).startswith(
        "luigi.cfg: [slurm.Prune] signal"
    )


def test_the_interval_of_polls_grows_and_never_shrinks():
    assert settings(slurm={"poll_seconds": "300"}).poll_seconds_max == 300
    assert settings(slurm={"poll_seconds_max": "60"}).poll_seconds == 20
    message = refusal(slurm={"poll_seconds": "30", "poll_seconds_max": "10"})
    assert message.startswith("luigi.cfg: [slurm] poll_seconds_max: 10 ")


def test_ctrl_c_has_three_answers():
    assert settings(slurm={"on_interrupt": "detach"}).on_interrupt == "detach"
    message = refusal(slurm={"on_interrupt": "cancle"})
    assert message == "luigi.cfg: [slurm] on_interrupt: 'cancle' is not a choice; did you mean 'cancel'?"


words = st.text(st.sampled_from("abn_-. \n%=1T"), max_size=12)
sections = st.dictionaries(st.sampled_from(KEYS) | words, words | st.integers(-2, 99).map(str), max_size=4)


@hypothesis_settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["slurm", "slurm.Prune", "slurm.TrainBase", "slurm.x"]), sections, max_size=3))
def test_whatever_stands_there_is_understood_or_refused_in_one_line(given_sections: dict[str, dict[str, str]]):
    found, refused = None, ""
    try:
        found = read_settings(given_sections, 1, 0)
    except ConfigError as error:
        refused = str(error)
    if found is None:
        assert refused.startswith("luigi.cfg: [slurm")
        return
    for family, resources in found.resources.items():
        assert isinstance(resources, Resources)
        assert resources.signal_delay_s < resources.timeout_min * 60
        assert family in PARALLEL or resources.processes == 1
        assert all(text not in ("", "false") for _, text in resources.sbatch)


@pytest.fixture
def read_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], SlurmSettings | None]:
    """Return a function that reads a luigi.cfg as a run does."""

    def read(config: str) -> SlurmSettings | None:
        parser = LuigiConfigParser()
        parser.read_string("[compute]\nbackend=slurm\n")
        parser.read_string(config)
        monkeypatch.setattr(luigi.configuration, "get_config", lambda: parser)
        return compute_settings().own

    return read


def test_the_sections_of_luigi_cfg_are_read(read_in: Callable[[str], SlurmSettings | None]):
    found = read_in(
        """
[compute]
threads=3
[slurm]
qos=normal
setup=
    module load cuda
    source ~/venv/bin/activate
[slurm.Retrain]
gpus_per_node=2
"""
    )
    assert found == settings(
        3,
        slurm={"qos": "normal", "setup": "module load cuda\nsource ~/venv/bin/activate"},
        slurm_Retrain={"gpus_per_node": "2"},
    )


@pytest.mark.parametrize(
    ("config", "start", "words"),
    [
        ("[slurm.Prune]\nnodes=few\n", "[slurm.Prune] nodes: 'few'", "whole number"),
        ("[slurm.Trainbase]\nnodes=1\n", "[slurm.Trainbase]: 'Trainbase' is not a family", "TrainBase"),
        ("[slurm]\nsetup=echo $(date +%H)\n", "[slurm] setup: ", "%%"),
        ("[slurm]\naccount=${NOBODY_SETS_THIS}\n", "[slurm] account: ", "NOBODY_SETS_THIS"),
    ],
)
def test_errors_of_luigi_cfg_name_section_and_key(read_in, config: str, start: str, words: str):
    with pytest.raises(ConfigError) as caught:
        read_in(config)
    assert str(caught.value).startswith(f"luigi.cfg: {start}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
