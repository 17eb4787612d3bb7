"""The site profiles in slurm/profiles are read as they stand."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from luigi_prune.execution.slurm.options import read_settings

PROFILES = sorted((Path(__file__).resolve().parents[2] / "slurm" / "profiles").glob("*.cfg"))


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_a_profile_says_what_its_jobs_get(profile: Path):
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(profile)
    assert parser["compute"]["backend"] == "slurm"
    sections = {name: dict(parser[name]) for name in parser.sections() if name.startswith("slurm")}
    settings = read_settings(sections, int(parser["compute"].get("threads", "1")), 0)
    for family, resources in settings.resources.items():
        own = {**sections["slurm"], **sections.get(f"slurm.{family}", {})}
        assert str(resources.timeout_min) == own["timeout_min"]
        assert dict(resources.sbatch)["partition"] == own["partition"]
        assert resources.processes <= max(1, resources.gpus)


def test_there_are_profiles():
    assert "dev_cluster" in [path.stem for path in PROFILES]
