"""The program's own options, and completion in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clusterctl import __version__

CLI = Path(sys.executable).with_name("clusterctl")


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment})


def test_version_is_an_option_too() -> None:
    done = run(CLI, "--version")
    assert done.returncode == 0 and done.stdout.startswith(f"clusterctl {__version__}")
    assert done.stdout == run(CLI, "version").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_for_the_shell_that_is_named(shell: str) -> None:
    """Whatever shell calls the program."""
    done = run(CLI, "completion", shell)
    assert done.returncode == 0 and f"complete_{shell}" in done.stdout
    if shutil.which(shell):
        assert run(shell, "-n", "-c", done.stdout).returncode == 0


def test_no_other_shell_is_completed() -> None:
    assert run(CLI, "completion", "csh").returncode == 2


@pytest.mark.parametrize(("line", "completed"), [
    ("node dr", ["drain"]),
    ("node drain -i INVENTORY w-", ["w-1", "w-2"]),
    ("plan -i INVENTORY --limit cp-1,w-1,w", ["cp-1,w-1,w-2", "cp-1,w-1,workers"]),
    ("exec -i INVENTORY work", ["workers"]),
    ("exec w-", ["w-1", "w-2"]),
    ("node drain -i /nonexistent w-", []),
    ("upgrade plan -i INVENTORY --to 1.37", ["1.37.2"]),
    ("lock -i INVENTORY --kubernetes 1.35", ["1.35.8"]),
    ("lock -i INVENTORY --update kubel", ["kubelet"]),
    ("lock -i INVENTORY --arch amd64,a", ["amd64,arm64"]),
    ("upgrade plan -i INVENTORY --component cont", ["containerd="]),
    ("upgrade plan -i INVENTORY --through 1.36", ["1.36.4"]),
    ("inventory -i INVENTORY --explain w-", ["w-1", "w-2"]),
    ("node drain -i INVENTORY w-1 w-", ["w-2"]),
    ("node replace -i INVENTORY w-1 w-", ["w-2"]),
])
def test_bash_completes_words(tmp_path: Path, line: str, completed: list[str]) -> None:
    inventory = tmp_path / "cluster.yaml"
    inventory.write_text("control_plane: {hosts: {cp-1: {ansible_host: 192.0.2.1}}}\netcd: {hosts: {cp-1: }}\n"
                         "workers: {hosts: {w-1: {ansible_host: 192.0.2.2}, w-2: {ansible_host: 192.0.2.3}}}\n")
    given = ["clusterctl", *line.replace("INVENTORY", str(inventory)).split()]
    script = f"""
        eval "$(clusterctl completion bash)"
        COMP_WORDS=({' '.join(given)}) COMP_CWORD={len(given) - 1}
        _clusterctl_completion clusterctl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = run("bash", "-c", script, PATH=f"{CLI.parent}:{os.environ['PATH']}", CLUSTERCTL_INVENTORY=str(inventory))
    assert done.stdout.split() == completed, done.stdout + done.stderr


def test_a_kubeconfig_s_file_is_named_as_that_of_other_verbs(tmp_path: Path) -> None:
    assert "--out" in run(CLI, "kubeconfig", "--help", COLUMNS="200").stdout


def test_a_file_that_is_no_image_archive_is_refused_in_a_line(tmp_path: Path) -> None:
    from clusterctl.commands.image import read
    from clusterctl.errors import InputError

    (tmp_path / "x.yaml").write_text("a: b")
    with pytest.raises(InputError) as caught:
        read(tmp_path / "x.yaml")
    assert "\n" not in caught.value.message and not caught.value.message.endswith(":")
