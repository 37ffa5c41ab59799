"""The contents of the wheel and the source distribution, with the licences of vendored files."""

from __future__ import annotations

import email.message
import email.parser
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"service/openrouter_guard": "openrouter_guard", "operator/openrouter_operator": "openrouter_operator"}
UPLOT = "service/openrouter_guard/api/page/static/uplot/LICENSE"


def tracked(*below: str) -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *below]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).exists()]


def build(source: Path, target: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=100)
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build(ROOT, "wheel", tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(ROOT, "sdist", folder)) as archive:
        archive.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    return source


def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.parser.Parser().parsestr(wheel.read(name).decode())


def licences() -> set[str]:
    """Ours, and those that lie beside what others wrote."""
    return {name for name in tracked() if re.search(r"(LICENSE[^/]*|NOTICE)$", name)}


def test_the_wheel_has_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    wanted = {name.replace(folder, package) for folder, package in PACKAGES.items() for name in tracked(folder)}
    wanted |= {f"openrouter_operator/{name}" for name in tracked("crds")}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == wanted


def test_every_licence_is_in_the_metadata_and_beside_it(wheel: zipfile.ZipFile) -> None:
    found = metadata(wheel)
    assert set(found.get_all("License-File", ())) == licences() >= {"LICENSE", UPLOT}
    kept = {name.partition(".dist-info/licenses/")[2] for name in wheel.namelist()}
    assert kept >= licences()


def test_the_licence_expression_names_what_others_wrote_too(wheel: zipfile.ZipFile) -> None:
    assert metadata(wheel)["License-Expression"] == "Apache-2.0 AND MIT AND BSD-3-Clause"
    assert "MIT License" in (ROOT / UPLOT).read_text()


def test_the_source_distribution_builds_the_same_wheel(
    wheel: zipfile.ZipFile, unpacked: Path, tmp_path: Path
) -> None:
    assert {name for name in licences() if not (unpacked / name).is_file()} == set()
    rebuilt = zipfile.ZipFile(build(unpacked, "wheel", tmp_path))
    assert sorted(rebuilt.namelist()) == sorted(wheel.namelist())


def test_nobody_is_told_to_install_a_name_that_no_index_has() -> None:
    for name in tracked():
        if name.endswith((".md", ".py", ".yaml", ".txt", "Makefile", "Dockerfile")):
            told = re.search(
                r"(pip|uv|pipx)( tool| pip)? install( -\S+)* +['\"]?openrouter[-_]guard", (ROOT / name).read_text()
            )
            assert told is None, f"{name}: {told}"
