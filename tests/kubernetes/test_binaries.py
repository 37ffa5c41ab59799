"""Where the control plane's programs come from, and the error if they cannot be had."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.controlplane import ControlPlaneUnavailable, binaries, build, find_or_build, helm, kubectl

FAKE_GO = """#!/bin/sh
if [ "$1" = version ]; then echo "go version go{version} linux/amd64"; exit; fi
{build}
"""
WRITES_ITS_OUTPUT = """
echo building >> "$XDG_CACHE_HOME/builds"
while [ "$1" != -o ]; do shift; done
echo built > "$2"
"""


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No Go, no Helm, an empty cache; programs put into ``bin`` of the returned folder are on ``PATH``."""
    for name in ("KUBEBUILDER_ASSETS", "HELM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def put(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def put_go(machine: Path, *, version: str = "1.26.0", build: str = WRITES_ITS_OUTPUT) -> None:
    put(machine / "bin" / "go", FAKE_GO.format(version=version, build=build))


def silent(_: str) -> None:
    pass


def test_programs_of_kubebuilder_assets_are_used(empty_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = empty_machine / "assets"
    names = ("etcd", "kube-apiserver", "kube-controller-manager")
    etcd, api_server, controller_manager = (put(folder / name) for name in names)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(folder))

    assert find_or_build() == binaries.Binaries(etcd, api_server, controller_manager)


def test_what_envtest_does_not_bring_comes_from_the_cache(
    empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(empty_machine / "assets" / "etcd")
    put(empty_machine / "assets" / "kube-apiserver")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(empty_machine / "assets"))
    cached = put(build.cached_path(binaries.CONTROLLER_MANAGER))

    assert find_or_build().controller_manager == cached


def test_what_envtest_does_not_bring_is_named_if_it_cannot_be_built(
    empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(empty_machine / "assets" / "etcd")
    put(empty_machine / "assets" / "kube-apiserver")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(empty_machine / "assets"))

    with pytest.raises(ControlPlaneUnavailable, match=r"kube-controller-manager is missing.* envtest does not bring"):
        find_or_build()


def test_assets_without_an_api_server_are_a_mistake(empty_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(empty_machine / "assets" / "etcd")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(empty_machine / "assets"))

    with pytest.raises(ControlPlaneUnavailable, match=r"no kube-apiserver: correct or unset it"):
        find_or_build()


def test_without_go_the_message_says_what_to_install() -> None:
    with pytest.raises(ControlPlaneUnavailable, match=r"etcd is missing.*Install Go 1\.26.*set KUBEBUILDER_ASSETS"):
        find_or_build()


def test_an_old_go_is_refused(empty_machine: Path) -> None:
    put_go(empty_machine, version="1.25.4")

    with pytest.raises(ControlPlaneUnavailable, match=r"Go is too old to build it \(go version go1\.25\.4"):
        find_or_build()


def test_programs_are_built_once(empty_machine: Path) -> None:
    put_go(empty_machine)
    lines: list[str] = []

    assert find_or_build(lines.append) == find_or_build(lines.append)
    assert [line.split()[:2] for line in lines] == [
        [verb, name]
        for name in ("etcd", "kube-apiserver", "kube-controller-manager")
        for verb in ("building", "built")
    ]


def test_two_builders_at_once_build_once(empty_machine: Path) -> None:
    put_go(empty_machine)

    with ThreadPoolExecutor() as pool:
        paths = {*pool.map(lambda _: build.build(binaries.ETCD, silent), range(4))}

    assert paths == {build.cached_path(binaries.ETCD)}
    assert (empty_machine / "builds").read_text() == "building\n"


def test_a_failed_build_says_why_and_leaves_no_program(empty_machine: Path) -> None:
    put_go(empty_machine, build="echo no such module; exit 1")

    with pytest.raises(ControlPlaneUnavailable, match=r"building etcd failed:\nno such module"):
        find_or_build(silent)
    assert [path.name for path in build.cached_path(binaries.ETCD).parent.iterdir()] == [".lock"]


def test_the_cache_tells_versions_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = build.cached_path(binaries.ETCD)
    module = tmp_path / "modules" / "tools"
    put(module / "go.mod", "require go.etcd.io/etcd/server/v3 v3.99.0\n")
    put(module / "go.sum", "")
    monkeypatch.setattr(build, "_MODULES", tmp_path / "modules")

    assert build.cached_path(binaries.ETCD) != before
    assert build.pinned_version(binaries.ETCD) == "v3.99.0"


def test_helm_is_the_one_that_the_environment_names(empty_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = put(empty_machine / "my-helm")
    monkeypatch.setenv("HELM", str(named))

    assert helm() == named


def test_a_wrong_name_for_helm_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELM", "/nowhere/helm")

    with pytest.raises(ControlPlaneUnavailable, match="HELM names /nowhere/helm"):
        helm()


def test_a_recent_helm_on_path_is_fine(empty_machine: Path) -> None:
    installed = put(empty_machine / "bin" / "helm", "#!/bin/sh\necho v3.14.2\n")

    assert helm() == installed


def test_an_old_helm_on_path_is_not(empty_machine: Path) -> None:
    put(empty_machine / "bin" / "helm", "#!/bin/sh\necho v3.9.0\n")

    with pytest.raises(ControlPlaneUnavailable, match=r"install Helm 3\.14 or newer"):
        helm()


def test_kubectl_beside_this_python_comes_first(empty_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(empty_machine / "bin" / "kubectl")
    beside = put(empty_machine / "venv" / "kubectl")
    monkeypatch.setattr(sys, "executable", str(empty_machine / "venv" / "python"))

    assert kubectl() == beside


def test_kubectl_on_path_comes_second(empty_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = put(empty_machine / "bin" / "kubectl")
    monkeypatch.setattr(sys, "executable", str(empty_machine / "venv" / "python"))

    assert kubectl() == installed
