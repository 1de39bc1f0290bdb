"""ansible-vault: what it encrypted is unknown, or read with its password, and never shown."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from clusterctl.commands.diff import difference
from clusterctl.components.additions import files, hooks
from clusterctl.components.base import Context
from clusterctl.errors import InputError, Problems
from clusterctl.inventory import read
from clusterctl.inventory.conversion import refuse_decrypted
from clusterctl.inventory.loader import Inventory
from clusterctl.inventory.show import as_data, as_text, explain
from clusterctl.inventory.sources import Sources
from clusterctl.inventory.vault import Passwords
from clusterctl.resources.additions import AddedFile
from clusterctl.session.opening import Opening, Options
from clusterctl.shell.facts import Facts
from clusterctl.ssh.ssh_config import resolve

PASSWORD = b"correct horse"
HOST = "control_plane: {hosts: {a: {ip: 192.0.2.1, ansible_user: ops}}}\n"


def encrypted(text: str, label: str | None = None, password: bytes = PASSWORD) -> str:
    content: bytes = VaultLib().encrypt(text.encode(), secret=VaultSecret(password), vault_id=label)
    return content.decode()


def inline(text: str, label: str | None = None, password: bytes = PASSWORD) -> str:
    """A value as `ansible-vault encrypt_string` prints it."""
    return "!vault |\n" + "".join(f"      {line}\n" for line in encrypted(text, label, password).splitlines())


def written(folder: Path, variables: str = "", **files: str) -> Path:
    path = folder / "hosts.yml"
    path.write_text(f"all:\n  vars:\n    some: thing\n{variables}{HOST}")
    for name, text in files.items():
        file = folder / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


def loaded(path: Path, *files: str, ids: tuple[str, ...] = ()) -> Inventory:
    return read(Sources((path,), Passwords(files, ids)))


@pytest.fixture
def password(tmp_path: Path) -> str:
    (tmp_path / "vault password").write_bytes(PASSWORD + b"\n")
    return str(tmp_path / "vault password")


def test_what_is_not_used_is_only_counted(tmp_path: Path) -> None:
    path = written(tmp_path, f"    grafana_password: {inline('hunter2')}", group_vars__all__vault=encrypted("ansible_port: 22"))
    notes = loaded(path).notes
    assert any(note.startswith("2 values or files") for note in notes)


@pytest.mark.parametrize("name", ["ansible_port", "ansible_host", "clusterctl_labels", "cluster"])
def test_what_is_used_is_asked_for(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, f"    {name}: {inline('22')}")
    with pytest.raises(InputError) as caught:
        loaded(path)
    assert caught.value.code == "inventory.vaulted" and caught.value.where == f"{path}:4:{len(name) + 7}"


def test_a_setting_in_the_cluster_variable_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, f"    cluster:\n      name: {inline('prod').replace('      ', '        ')}")
    with pytest.raises(InputError) as caught:
        loaded(path)
    assert caught.value.code == "inventory.vaulted"


def test_values_and_files_are_decrypted(tmp_path: Path, password: str) -> None:
    path = written(tmp_path, f"    ansible_port: {inline('2222')}", group_vars__all__vault=encrypted("cluster: {name: prod}"),
                   host_vars__a=encrypted("clusterctl_labels: {zone: b}", "dev"))
    found = loaded(path, password)
    host = found.cluster.host("a")
    assert (found.cluster.name, host.ssh.port, host.labels) == ("prod", 2222, {"zone": "b"})
    assert not any("vault" in note for note in found.notes)


def test_an_inventory_that_is_encrypted_as_a_whole(tmp_path: Path, password: str) -> None:
    path = tmp_path / "hosts.ini"
    path.write_text(encrypted("[control_plane]\na ansible_host=192.0.2.1\n"))
    assert loaded(path, password).cluster.host("a")
    with pytest.raises(InputError) as caught:
        read(path)
    assert caught.value.code == "inventory.vaulted"


@pytest.mark.parametrize("large", [False, True])
def test_marks_of_ansible_s_json(tmp_path: Path, password: str, large: bool) -> None:
    """ansible-inventory --list prints an encrypted and an unsafe value as a map with a mark."""
    variables = {"ansible_host": {"__ansible_vault": encrypted("192.0.2.7")}, "ansible_user": {"__ansible_unsafe": "ops"},
                 "ansible_become_password": {"__ansible_vault": encrypted("hunter2")}, "motd": "x" * (70_000 if large else 1)}
    path = tmp_path / "listing.json"
    path.write_text(json.dumps({"_meta": {"hostvars": {"a": variables}}, "control_plane": {"hosts": ["a"]}}))
    found = loaded(path, password)
    [host] = found.cluster.hosts
    assert (host.ssh.address, host.ssh.user) == ("192.0.2.7", "ops")
    assert found.sudo_passwords["a"].reveal() == "hunter2"
    with pytest.raises((InputError, Problems)) as raised:
        loaded(path)
    assert "inventory.vaulted" in str(raised.value)


@pytest.mark.parametrize("given", [PASSWORD + b" ", b"x", b"wrong"])
def test_a_wrong_password_is_refused(tmp_path: Path, given: bytes) -> None:
    (tmp_path / ".password").write_bytes(b"not " + given)
    with pytest.raises(InputError) as caught:
        loaded(written(tmp_path, f"    grafana_password: {inline('hunter2')}"), str(tmp_path / ".password"))
    assert caught.value.code == "inventory.vault-wrong-password"


def test_each_label_has_its_password(tmp_path: Path, password: str) -> None:
    (tmp_path / ".dev").write_text("another\n")
    path = written(tmp_path, f"    ansible_port: {inline('2222', 'dev', b'another')}    ansible_user: {inline('bob', 'prod')}")
    assert loaded(path, ids=(f"dev@{tmp_path}/.dev", f"prod@{password}")).cluster.host("a").ssh.port == 2222


@pytest.mark.parametrize("name", ["show.sh", "show-client.sh"])
def test_a_program_prints_the_password(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.write_text('#!/bin/sh\n[ $# = 0 ] && echo "correct horse"\n[ "$1 $2" = "--vault-id dev" ] && echo "correct horse"\ntrue\n')
    program.chmod(0o755)
    path = written(tmp_path / "", f"    ansible_port: {inline('2222')}")
    assert loaded(path, ids=(f"dev@{program}",)).cluster.host("a").ssh.port == 2222


WRONG = [("$ANSIBLE_VAULT;1.0;AES\n00", "inventory.vault-format"), ("$ANSIBLE_VAULT;1.1;AES256\nzz", "inventory.vault-format"),
         ("$ANSIBLE_VAULT;1.1;AES256\n", "inventory.vault-format"), ("$ANSIBLE_VAULT;1.1;AES256\n610a61", "inventory.vault-format"),
         ("$ANSIBLE_VAULT;1.1;AES256\n36310a36310a36", "inventory.vault-format"), ("$ANSIBLE_VAULT", "inventory.value")]


@pytest.mark.parametrize(("content", "code"), WRONG)
def test_what_is_not_ansible_vaults(tmp_path: Path, password: str, content: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        loaded(written(tmp_path, host_vars__a=content), password)
    assert caught.value.code == code


@pytest.mark.parametrize("cut", [20, 60, 200, -3])
def test_a_part_of_a_file_is_refused(tmp_path: Path, password: str, cut: int) -> None:
    with pytest.raises(InputError) as caught:
        loaded(written(tmp_path, host_vars__a=encrypted("x: 1" * 30)[:cut]), password)
    assert caught.value.code in ("inventory.vault-format", "inventory.vault-wrong-password")


@pytest.mark.parametrize("variables", [
    "ansible_become_password: {secret}", "ansible_become_pass: {secret}", "ansible_password: {secret}",
    "ansible_become_password: '{{{{ vault_sudo }}}}'\n    vault_sudo: {secret}",
])
def test_a_vaulted_password_is_for_sudo(tmp_path: Path, password: str, variables: str) -> None:
    path = written(tmp_path, "    " + variables.format(secret=inline("hunter2")))
    found = loaded(path, password)
    assert found.sudo_passwords["a"].reveal() == "hunter2"
    assert "hunter2" not in repr(found) and "hunter2" not in found.cluster.model_dump_json()
    opening = Opening(Options(inventory=Sources((path,), Passwords((password,)))))
    assert opening._sudo_password("a")() == "hunter2"
    given = Opening(Options(inventory=Sources((path,), Passwords((password,))), sudo_password=lambda: "given"))
    assert given._sudo_password("a")() == "given"
    assert not loaded(path).sudo_passwords, "it is not needed to read the inventory"


@pytest.mark.parametrize(("name", "given", "used"), [
    ("ansible_password", None, "hunter2"), ("ansible_ssh_pass", None, "hunter2"), ("ansible_password", "given", "given"),
    ("ansible_become_password", None, None)])
def test_a_vaulted_password_is_for_logins(tmp_path: Path, password: str, monkeypatch: pytest.MonkeyPatch, name: str, given: str | None,
                                          used: str | None) -> None:
    path = written(tmp_path, f"    {name}: {inline('hunter2')}")
    opening = Opening(Options(inventory=Sources((path,), Passwords((password,))), ssh_password=lambda: given))
    asked: list[str | None] = []
    monkeypatch.setattr("clusterctl.ssh.login.Keys", lambda *arguments: asked.append(arguments[-1]()))
    way = resolve(opening.cluster.host("a").ssh)
    for host in ("a", "bastion a"):
        opening.login._log_in(Mock(), host, way, None, certified=False)
    assert asked == [used, None] and "hunter2" not in repr(opening.login)


def test_a_vaulted_password_of_a_registry_is_refused_with_what_to_do(tmp_path: Path, password: str) -> None:
    settings = "cluster: {registries: {a.example: {username: u, password: hunter2}}}"
    with pytest.raises(InputError) as caught:
        loaded(written(tmp_path, group_vars__all=encrypted(settings)), password)
    assert caught.value.code == "inventory.secret" and "password: {env" in caught.value.hint and "hunter2" not in str(caught.value)


def test_a_password_in_the_open_is_refused_still(tmp_path: Path, password: str) -> None:
    for value in ("hunter2", "'{{ open }}'\n    open: hunter2"):
        with pytest.raises((InputError, Problems)) as caught:
            loaded(written(tmp_path, f"    ansible_become_password: {value}\n"), password)
        assert caught.value.as_dict()["code"] == "inventory.secret" and "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["ansible_port", "ansible_host", "ansible_user", "ansible_become", "ansible_ssh_common_args", "clusterctl_labels",
                                  "clusterctl_taints", "clusterctl_host_key", "ip", "ansible_timeout", "clusterctl_network_namespace",
                                  "ansible_connection", "ansible_ssh_private_key_file", "ansible_grup_priority", "clusterctl_x"])
def test_a_decrypted_value_that_is_wrong_is_not_shown(tmp_path: Path, password: str, name: str) -> None:
    path = written(tmp_path, host_vars__a=f"{name}: {inline('hunter2 {% x')}")
    try:
        found = loaded(path, password)
    except (InputError, Problems) as error:
        assert "hunter2" not in str(error) + json.dumps(error.as_dict())
    else:
        assert name == "ansible_ssh_private_key_file" and "hunter2" not in str(found.notes)


@pytest.mark.parametrize("setting", ["name: {}", "kubernetes: {}", "network: {{pods: {}}}", "endpoint: {{address: {}}}", "max_unavailable: {}",
                                     "artifacts: {{mirror: {}}}", "versions: {{etcd: {}}}"])
def test_a_decrypted_setting_that_is_wrong_is_not_shown(tmp_path: Path, password: str, setting: str) -> None:
    path = written(tmp_path, group_vars__all__vault=encrypted(f"cluster: {{{setting.format('ftp://hunter2@/')}}}"))
    with pytest.raises((InputError, Problems)) as caught:
        loaded(path, password)
    assert "hunter2" not in str(caught.value) + json.dumps(caught.value.as_dict())


@pytest.mark.parametrize("content", [
    "ansible_user: 771177", "ansible_port: 771177", "ansible_host: 77.1177", "clusterctl_labels: {a: '771177 x'}", "clusterctl_labels: {a: 771177.5}",
    "clusterctl_taints: ['771177=b:NoExecute', '771177=c:NoExecute']", "clusterctl_taints: [771177]", "ansible_become: 771177", "ansible_user: 0o771177",
    "ansible_connection: '771177'", "ansible_ssh_common_args: -o Port=771177", "ansible_ssh_common_args: \"'771177\"", "ip: '771177::1'",
    "{ansible_host: '771177', ansible_ssh_host: '8'}", "ansible_user: '{{ a771177 }}'", "x: [1, 771177", "x: '\\\\u771177", "x: 7\n771177",
    "ansible_user: 771177:30", "ansible_timeout: 771177", "cluster: {kubernetes: 1.771177}", "cluster: {kubernetes: '1.771177.0'}", "cluster: {name: 771177}",
    "cluster: {network: {pods: 77.1.1.77/8}}", "cluster: {network: {cni: '771177'}}", "cluster: {network: {node_mask: 771177}}", "cluster: 771177",
    "cluster: {certificate_days: 0x771177}", "cluster: {api_server: {extra_args: {v: 771177}}}", "cluster: {artifacts: {pins: {a: '771177'}}}",
])
def test_wrong_content_of_a_decrypted_file_is_not_shown(tmp_path: Path, password: str, content: str) -> None:
    name = "group_vars__all__vault.yml" if "cluster" in content.partition(":")[0] else "host_vars__a"
    with pytest.raises((InputError, Problems)) as caught:
        loaded(written(tmp_path, **{name: encrypted(content)}), password)
    shown = str(caught.value) + json.dumps(caught.value.as_dict())
    assert "771177" not in shown and "77.1" not in shown, shown


def test_options_of_the_command_line(tmp_path: Path, password: str) -> None:
    path = written(tmp_path, f"    ansible_port: {inline('2222')}    ansible_become_password: {inline('hunter2')}")
    words = [sys.executable, "-m", "clusterctl", "inventory", "-i", str(path), "-o", "json"]

    def run(*more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*words, *more], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
                              env={**os.environ, **environment}, start_new_session=True)

    for done in (run("--vault-password-file", password), run("--vault-id", f"x@{password}"), run(ANSIBLE_VAULT_PASSWORD_FILE=password)):
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["cluster"]["hosts"][0]["ssh"]["port"] == 2222 and "hunter2" not in done.stdout + done.stderr
    for done, code in ((run(), "inventory.vaulted"), (run("--ask-vault-pass"), "inventory.vault-no-terminal"),
                       (run("--vault-password-file", str(tmp_path / "none")), "inventory.unreadable")):
        assert done.returncode == 2 and f"[{code}]" in done.stderr, done.stderr


@pytest.mark.parametrize(("words", "typed", "code", "shown"), [
    (["--ask-vault-pass"], b"correct horse\n", 0, ":2222"), (["--vault-id", "dev@prompt"], b"correct horse\n", 0, ":2222"),
    (["--ask-vault-pass"], b"wrong\n", 2, "[inventory.vault-wrong-password]"), (["--ask-vault-pass"], b"\x04", 3, "was not answered"),
    (["--ask-vault-pass"], b"\x03", 3, "was not answered")])
def test_a_password_is_asked_for_on_a_terminal(tmp_path: Path, words: list[str], typed: bytes, code: int, shown: str) -> None:
    path = written(tmp_path, f"    ansible_port: {inline('2222')}")
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "clusterctl", "inventory", "-i", str(path), *words])
    output = b""
    while b"vault password (" not in output:
        output += os.read(terminal, 1000)
    os.write(terminal, typed)
    with contextlib.suppress(OSError):  # The terminal's end.
        while block := os.read(terminal, 1000):
            output += block
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code and shown.encode() in output, output
    assert b"horse" not in output and b"wrong\r" not in output


def test_settings_that_were_decrypted_are_not_explained(tmp_path: Path, password: str) -> None:
    settings = "cluster: {kubelet: {labels: {zone: hunter2}, taints: ['hunter2:NoExecute']}}"
    found = loaded(written(tmp_path, group_vars__all__vault=encrypted(settings)), password)
    text = explain(found, found.cluster.host("a"))
    assert "hunter2" not in text and text.count("(hidden)") == 2
    assert found.cluster.host("a").settings.kubelet.labels == {"zone": "hunter2"}


SETTINGS = """\
cluster:
  kubelet: {extra_args: {foo: hunter2}, labels: {zone: hunter2}}
  files: [{path: /etc/a, content: "hunter2\\n", mode: "0600"}]
  hooks: [{name: a, after: nodes, run: echo hunter2}]
clusterctl_labels: {rack: hunter2}
clusterctl_taints: ["hunter2:NoExecute"]
"""


def test_decrypted_settings_are_in_no_text_json_plan_and_difference(tmp_path: Path, password: str) -> None:
    path = written(tmp_path, host_vars__a=encrypted(SETTINGS), group_vars__all=encrypted("cluster: {scheduler: {extra_args: {v: hunter2}}}"))
    found = loaded(path, password)
    host = found.cluster.host("a")
    shown = [as_text(found), json.dumps(as_data(found)), explain(found, host)]
    assert all("(hidden)" in text for text in shown)
    assert host.settings.files[0].content == "hunter2\n" and host.labels == {"zone": "hunter2", "rack": "hunter2"}
    context = Context(cluster=found.cluster, host=host, facts=Facts(), pki=None, catalog=None)  # type: ignore[arg-type]
    [hook] = hooks("nodes", after=True).resources(context)
    [file] = [one for one in files(context) if isinstance(one, AddedFile)]
    for resource in (hook, file):
        change = resource.diff(None)
        assert change is not None
        shown += [json.dumps(change.as_dict()), difference(change, {"/etc/a": b"old"}, host.settings)]
    assert not any("hunter2" in text for text in shown), shown
    with pytest.raises(Problems) as caught:
        refuse_decrypted(found.decrypted)
    codes = {(one.code, one.where.partition(":")[0]) for one in caught.value.errors}
    assert codes == {("inventory.convert-secret", str(tmp_path / name)) for name in ("host_vars/a", "group_vars/all")}
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("http_proxy", "http://p:1"), ("kube_version", "1.35.8"), ("kube_network_plugin", "cni")])
def test_a_vaulted_variable_of_kubespray_is_needed_and_read(tmp_path: Path, password: str, name: str, value: str) -> None:
    path = written(tmp_path, f"    {name}: {inline(value)}")
    settings = loaded(path, password).cluster.settings
    assert (settings.proxy.http, settings.kubernetes, settings.network.cni) == {
        "http_proxy": ("http://p:1", None, "flannel"), "kube_version": (None, "1.35.8", "flannel"), "kube_network_plugin": (None, None, "none")}[name]
    with pytest.raises(InputError) as caught:
        loaded(path)
    assert caught.value.code == "inventory.vaulted" and caught.value.where.startswith(f"{path}:4:")


def test_a_vaulted_variable_of_kubespray_is_not_shown_where_it_is_not_followed(tmp_path: Path, password: str) -> None:
    path = written(tmp_path, f"    kube_pods_subnet: {inline('10.66.0.0/16')}    cluster: {{network: {{pods: 10.77.0.0/16}}}}\n")
    assert "10.66" not in str(loaded(path, password).notes) and any("10.77" in note for note in loaded(path, password).notes)
    assert loaded(path).cluster.network.pods.prefixlen == 16, "cluster decides, and the variable is not needed"


@pytest.mark.parametrize("value", ["'{{ vault_become }}'", "\"{{ lookup('env', 'PW') }}\"", "''", "", "'{{ empty }}'\n    empty: ''"])
def test_a_template_and_nothing_are_no_secrets(tmp_path: Path, value: str) -> None:
    path = written(tmp_path, group_vars__all__main=f"ansible_become_password: {value}\n".replace("\n    ", "\n"),
                   group_vars__all__vault=encrypted("vault_become: hunter2"))
    found = loaded(path)
    assert not found.sudo_passwords and any("ansible_become_password" in note for note in found.notes) == ("vault" in value or "lookup" in value)


def test_an_encrypted_address_is_asked_for_once(tmp_path: Path) -> None:
    path = tmp_path / "hosts.yml"
    path.write_text(f"control_plane:\n  hosts:\n    n2:\n      ansible_host: {inline('192.0.2.1').replace('      ', '        ')}")
    with pytest.raises(InputError) as caught:
        loaded(path)
    assert caught.value.code == "inventory.vaulted"


def test_a_decrypted_setting_that_breaks_a_rule_is_not_shown(tmp_path: Path, password: str) -> None:
    with pytest.raises(InputError) as caught:
        loaded(written(tmp_path, group_vars__all=encrypted("cluster: {network: {node_mask: 17, pods: 10.66.0.0/18}}")), password)
    assert "10.66" not in str(caught.value) and "vault" not in caught.value.hint
