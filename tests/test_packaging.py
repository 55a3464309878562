"""The installed distribution holds our four packages and a working command."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"sim", "workloads", "calibration", "reports"}


@pytest.fixture(scope="module")
def installed() -> Distribution:
    try:
        return distribution("servescope")
    except PackageNotFoundError:
        pytest.skip("servescope is not installed in this environment")


def test_the_project_names_its_packages_one_by_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["packages"]) == PACKAGES
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == PACKAGES | {"tests"}


def test_installed_files_are_ours(installed: Distribution) -> None:
    tops = {file.parts[0] for file in installed.files or ()}
    ours = {top for top in tops if not top.endswith(".dist-info") and top != ".."}
    assert ours <= PACKAGES | {"_servescope.pth", "__editable___servescope"}


def test_the_command_works_from_any_folder(
    installed: Distribution, tmp_path: Path
) -> None:
    command = Path(sys.executable).with_name("servescope")
    done = subprocess.run(
        [str(command), "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"servescope {installed.version}\n"


def test_no_file_is_too_large_to_keep() -> None:
    """Data files under 2 MB each and 12 MB in all."""
    sizes = [p.stat().st_size for p in ROOT.glob("*/data/*") if p.is_file()]
    assert max(sizes) < 2_000_000
    assert sum(sizes) < 12_000_000
