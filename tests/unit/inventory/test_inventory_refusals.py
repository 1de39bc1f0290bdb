"""What is refused, at which place, and in which words: one line for each thing."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from clusterctl.errors import InputError, Problems
from clusterctl.inventory import load, read

TWO = """\
all:
  vars:
{vars}
  children:
    control_plane:
      hosts:
        cp-1: {{ansible_host: 192.0.2.11}}
    workers:
      hosts:
        w-1: {{ansible_host: 192.0.2.21{host}}}
"""


def refusal(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "i.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((InputError, Problems)) as caught:
        load(path)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{tmp_path}/", "")


CLUSTER = [
    # case                  the cluster variable                            place    words
    ("float version",       'kubernetes: 1.36',                             "3:27",  'quote it: "1.36"'),
    ("version with v",      'kubernetes: v1.36.4',                          "3:27",  "written without v: 1.36.4"),
    ("old minor",           'kubernetes: "1.20"',                           "3:27",  "supported are 1.35"),
    ("short version",       'versions: {etcd: "3.6"}',                      "3:32",  "is not a version"),
    ("endpoint unusable",   'endpoint: {address: 0.0.0.0}',                 "3:35",  "other machines cannot reach 0.0.0.0"),
    ("endpoint loopback",   'endpoint: {address: 127.0.0.1}',               "3:35",  "other machines cannot reach 127.0.0.1"),
    ("minor",               'kubernetes: "1.12.0"',                         "3:27",  "Kubernetes 1.12.0 is not supported"),
    ("unknown key",         "nam: x",                                       "3:15",  "did you mean 'name'?"),
    ("inner unknown key",   "network: {pod: 10.0.0.0/8}",                   "3:25",  "did you mean 'pods'?"),
    ("not a mask",          "network: {pods: 10.244.0.0/33}",               "3:31",  "'10.244.0.0/33' is not an IPv4 network"),
    ("host bits",           "network: {pods: 10.244.1.0/16}",               "3:31",  "did you mean 10.244.0.0/16?"),
    ("overlap",             "network: {pods: 10.96.0.0/15}",                "3:24",  "services 10.96.0.0/16 overlaps pods"),
    ("host in pods",        "network: {pods: 192.0.0.0/16}",                "7:9",   "192.0.2.11 is inside the pods network"),
    ("host in services",    "network: {services: 192.0.2.0/24}",            "7:9",   "is inside the services network"),
    ("endpoint in pods",    "endpoint: {address: 10.244.0.9}",              "3:35",  "is inside the pods network"),
    ("endpoint",            "endpoint: {address: 300.1.2.3}",               "3:35",  "300.1.2.3 is not an IPv4 address"),
    ("endpoint name",       "endpoint: {names: [api, 300.1.2.3]}",          "3:33",  "300.1.2.3 is not an IPv4 address"),
    ("endpoint upper case", "endpoint: {address: API_1}",                   "3:35",  "is not a DNS name"),
    ("node mask too small", "network: {pods: 10.244.0.0/24}",               "3:24",  "1 parts of /24, too few for 2 nodes"),
    ("node mask outside",   "network: {pods: 10.244.0.0/28}",               "3:24",  "does not fit"),
    ("node mask apart",     "network: {pods: 11.0.0.0/8, node_mask: 25}",   "3:54",  "17 bits apart"),
    ("max pods",            "network: {node_mask: 26}",                     "3:14",  "110 pods do not fit"),
    ("services too large",  "network: {services: 11.0.0.0/8}",              "3:35",  "between /12 and /28"),
    ("octal",               "network: {node_mask: 030}",                    "3:36",  "YAML has its own reading of 030"),
    ("mirror IPv6",         "artifacts: {mirror: 'http://[::1'}",           "3:35",  "neither a folder nor an http(s) URL"),
    ("mirror host",         "artifacts: {mirror: 'http://a..b/'}",          "3:35",  "neither a folder nor an http(s) URL"),
    ("mirror path",         "artifacts: {mirror: 'http://a/ünï'}",          "3:35",  "neither a folder nor an http(s) URL"),
    ("mirror query",        "artifacts: {mirror: 'http://a/?b'}",           "3:35",  "neither a folder nor an http(s) URL"),
    ("mirror scheme",       "artifacts: {mirror: 'ftp://a/b'}",             "3:35",  "neither a folder nor an http(s) URL"),
    ("mirror without host", "artifacts: {mirror: 'http://'}",               "3:35",  "neither a folder nor an http(s) URL"),
    ("mirror port",         "artifacts: {mirror: 'http://a:abc/'}",         "3:35",  "neither a folder nor an http(s) URL"),
    ("mirror port range",   "artifacts: {mirror: 'http://a:99999/'}",       "3:35",  "Port out of range"),
    ("mirror password",     "artifacts: {mirror: 'http://u:hunter2@a/'}",   "3:35",  "a URL with a user or password in it"),
    ("pull from a folder",  "artifacts: {mirror: /m, delivery: pull}",      "3:49",  "machines cannot fetch from the folder"),
    ("push and a mirror",   "mirror: 'https://m.example', artifacts: {delivery: push}", "3:66", "with push no machine fetches"),
    ("mirror of machines",  "mirror: /srv/mirror",                          "3:23",  "is not an http(s) URL"),
    ("unknown relay",       "artifacts: {relay: w-9}",                      "3:34",  "no host is called 'w-9'"),
    ("unknown delivery",    "artifacts: {delivery: carry}",                 "3:37",  "is not one of 'auto', 'pull'"),
    ("mirror home",         "artifacts: {mirror: ~nosuchuser/x}",           "3:35",  "the home of '~nosuchuser/x' is not known"),
    ("cache home",          "artifacts: {cache: ~nosuchuser/x}",            "3:34",  "the home of '~nosuchuser/x' is not known"),
    ("manifest home",       "addons: {manifests: [~nosuchuser/x]}",         "3:36",  "the home of '~nosuchuser/x' is not known"),
    ("none at once",        "max_unavailable: 0",                           "3:32",  "does not have the form"),
    ("sexagesimal",         "certificate_days: 22:30",                      "3:33",  "YAML has its own reading of 22:30"),
    ("date",                "name: 2024-01-01",                             "3:21",  'quote it: "2024-01-01"'),
    ("norway",              "name: no",                                     "3:21",  'quote it: "no"'),
    ("range",               "certificate_days: 0",                          "3:33",  "at least 1"),
    ("text for a number",   'certificate_days: "30"',                       "3:33",  "a whole number is wanted"),
    ("text for a flag",     'addons: {coredns: "yes"}',                     "3:33",  "true or false is wanted"),
    ("nothing for a map",   "network:",                                     "3:24",  "a map is wanted, not nothing"),
    ("text for a map",      "network: x",                                   "3:24",  "a map is wanted, not 'x'"),
    ("choice",              "network: {backend: vxlam}",                    "3:34",  "did you mean 'vxlan'?"),
    ("template",            'name: "{{ x }}"',                              "3:21",  "does not render templates"),
    ("template in a flag",  'kubelet: {extra_args: {v: "{% x %}"}}',        "3:41",  "is a template"),
    ("name of a node",      'kubelet: {extra_args: {hostname-override: "x"}}', "3:37", "rename the host"),
    ("flag with dashes",    'kubelet: {extra_args: {--v: "4"}}',            "3:38",  "without dashes"),
    ("flag with newline",   'kubelet: {extra_args: {v: "a\\nb"}}',          "3:41",  "one line of text"),
    ("product",             'versions: {etdc: "3.6.1"}',                    "3:26",  "did you mean 'etcd'?"),
    ("kubernetes twice",    'versions: {kubernetes: "1.36.4"}',             "3:26",  "it is cluster.kubernetes"),
    ("traversal",           "name: ../../etc",                              "3:21",  "is not a DNS label"),
    ("duplicate",           "{name: a, name: b}",                           "3:24",  "here twice, first in line 3"),
    ("mirror of a number",  "artifacts: {mirror: 8080}",                    "3:35",  'quote it: "8080"'),
]


@pytest.mark.parametrize("settings, place, words", [row[1:] for row in CLUSTER], ids=[row[0] for row in CLUSTER])
def test_settings(tmp_path: Path, settings: str, place: str, words: str) -> None:
    text = settings if settings.startswith("{") else "{" + settings + "}"
    if settings == "network:":
        text = "{network: }"
    message = refusal(tmp_path, TWO.format(vars=f"    cluster: {text}", host=""))
    assert words in message
    if settings.startswith("{"):
        place = "3:24"
    assert f"i.yaml:{place}: " in message, message
    assert "hunter2" not in message


HOST = [
    # case                  more variables of w-1                               words
    ("misspelt ansible",    "ansible_hots: x",                                  "did you mean 'ansible_host'?"),
    ("misspelt ours",       "clusterctl_adress: 192.0.2.9",                     "did you mean 'clusterctl_address'?"),
    ("unknown of ours",     "clusterctl_x: 1",                                  "known are clusterctl_address"),
    ("password",            "ansible_become_password: hunter2",                 "secrets do not belong in an inventory"),
    ("other password",      "ansible_ssh_pass: hunter2",                        "CLUSTERCTL_SUDO_PASSWORD"),
    ("python tag",          "x: !!python/object/apply:os.system [id]",          "is refused"),
    ("port",                "ansible_port: 70000",                              "from 1 to 65535"),
    ("octal port",          "ansible_port: 022",                                "from 1 to 65535"),
    ("port as a flag",      "ansible_port: yes",                                "from 1 to 65535"),
    ("connection",          "ansible_connection: docker",                       "only ssh"),
    ("become method",       "ansible_become_method: su",                        "only sudo"),
    ("become user",         "ansible_become_user: bob",                         "only root"),
    ("no become",           "ansible_user: bob, ansible_become: false",         "needs root"),
    ("user",                "ansible_user: 'a b'",                              "is not a user's name"),
    ("user as an option",   "ansible_user: -oProxyCommand=x",                   "is not a user's name"),
    ("address",             "clusterctl_address: 192.0.2",                      "is not an IPv4 address"),
    ("ipv6",                "ip: 'fe80::1'",                                    "is not an IPv4 address"),
    ("loopback",            "ip: 127.0.0.1",                                    "other machines cannot reach 127.0.0.1"),
    ("template",            "ip: '{{ x }}'",                                    "is a template"),
    ("same address",        "ip: 192.0.2.11",                                   "hosts cp-1 and w-1 have the same node address"),
    ("two names differ",    "ansible_ssh_host: 192.0.2.22",                     "are the same thing, and differ"),
    ("label value",         "clusterctl_labels: {a: no}",                       'quote it: "no"'),
    ("label value form",    "clusterctl_labels: {a: 'b c'}",                    "is not a label's value"),
    ("label name",          "clusterctl_labels: {'a b': c}",                    "is not a label's name"),
    ("labels as a list",    "clusterctl_labels: [a]",                           "a map of labels is wanted"),
    ("taint effect",        "clusterctl_taints: ['a=b:NoSchedul']",             "did you mean 'NoSchedule'?"),
    ("taint key",           "clusterctl_taints: [{keys: a, effect: NoExecute}]", "did you mean 'key'?"),
    ("taints as text",      "clusterctl_taints: a",                             "a list of taints is wanted"),
    ("host key",            "clusterctl_host_key: md5",                         "neither a fingerprint"),
    ("arguments",           "ansible_ssh_common_args: '-o \"'",                 "cannot be split"),
    ("other file",          "ansible_ssh_common_args: -F /x",                   "-F /x: another configuration file"),
    ("bastion's port",      "ansible_ssh_common_args: '-J ops@bastion:abc'",    "'ops@bastion:abc' is no bastion"),
    ("bastion's port range", "ansible_ssh_extra_args: -o ProxyJump=a:99999",     "'a:99999' is no bastion"),
    ("no bastion",          "ansible_ssh_common_args: '-J a,,b'",               "'' is no bastion"),
    ("proxy command",       "ansible_ssh_common_args: '-o \"ProxyCommand=a ''b\"'", "cannot be split into arguments"),
    ("taint twice",         "clusterctl_taints: ['a=b:NoExecute', 'a=c:NoExecute']", "a second taint a with the effect NoExecute"),
    ("namespace",           "clusterctl_network_namespace: ../x",               "is not a namespace's name"),
    ("newline",             'ansible_user: "a\\nb"',                            "one line of printable text"),
    ("bidi escape",         'x: "\\u202e"',                                     "U+202E is not allowed"),
    ("cluster of a host",   "cluster: {name: x}",                               "one for the whole cluster"),
    ("alias",               "x: *a",                                            "nothing before it is called &a"),
    ("alias of itself",     "x: &a [*a]",                                       "is a part of what it stands for"),
    ("merge key",           "<<: [a]",                                          "<< is for a map"),
    ("key is a list",       "? [a] : b",                                        "a key must be plain text"),
]


@pytest.mark.parametrize("more, words", [row[1:] for row in HOST], ids=[row[0] for row in HOST])
def test_host_variables(tmp_path: Path, more: str, words: str) -> None:
    message = refusal(tmp_path, TWO.format(vars="    x: 1", host=f", {more}"))
    assert words in message
    assert "i.yaml:10:" in message
    assert "hunter2" not in message


DOCUMENTS = [
    # case             the file                                                      words
    ("empty",          "",                                                           "i.yaml: is empty"),
    ("comment",        "# nothing\n",                                                "i.yaml: is empty"),
    ("list",           "- a\n",                                                      "1:1: the inventory: a map is wanted"),
    ("no hosts",       "all: {}\n",                                                  "no hosts"),
    ("tab",            "all:\n\thosts: {}\n",                                        "2:1: is indented with a tab"),
    ("two documents",  "all: {}\n---\nall: {}\n",                                    "2:1: holds a second document"),
    ("nul",            b"all: \0",                                                   "1:6: character U+0000"),
    ("not utf-8",      b"all:\n  \xff: x",                                           "2:3: byte 0xff is not UTF-8"),
    ("bidi",           "all: {} # \u202e",                                           "1:11: character U+202E"),
    ("flow unclosed",  "all: {",                                                     "is not YAML"),
    ("deep",           "[" * 5000,                                                   "is nested more than 20 deep"),
    ("deep in blocks", "".join(" " * n + "a:\n" for n in range(60)),                 "is nested more than 20 deep"),
    ("upper case",     "workers: {hosts: {W-1: {}, w-1: {}}}",                       "W-1 and w-1 are both called w-1"),
    ("traversal",      "workers: {hosts: {../../x: {}}}",                            "'../../x' is not a host name"),
    ("group name",     "../x: {hosts: {}}",                                          "no hosts"),
    ("group key",      "workers: {host: {}}",                                        "did you mean 'hosts'?"),
    ("hosts as list",  "workers: {hosts: [a]}",                                      "workers.hosts: a map is wanted"),
    ("all as a child", "a: {children: {all: }}",                                     "1:16: all holds every group"),
    ("priority",       "a: {vars: {ansible_group_priority: ten}}",                   "is wanted, not 'ten'"),
    ("circle",         "a: {children: {b: }}\nb: {children: {a: }}",                 "contains itself: b > a > b"),
    ("no address",     "control_plane: {hosts: {a: }}",                              "no IPv4 address is known of a"),
    ("dns name",       "control_plane: {hosts: {a: {ansible_host: a.example.com}}}", "clusterctl_address"),
    ("no control",     "workers: {hosts: {a: {ip: 192.0.2.1}}}",                     "no host is in the group control_plane"),
    ("idle",           "all: {hosts: {a: {ip: 192.0.2.1}}}",                         "no host is in the group control_plane, etcd or workers"),
    ("misspelt group", "worker: {hosts: {a: {ip: 192.0.2.1}}}",                      "1:1: group worker has no meaning (did you mean 'workers'?)"),
    ("bomb of ranges", "workers: {hosts: {'a[0:4999][0:4999]': }}",                  "more than 5000 hosts"),
    ("bomb of a range", "workers: {hosts: {'a[0:999999999]': }}", "has more than 5000 hosts"),
    ("range backwards", "workers: {hosts: {'a[3:1]': }}", "ends before it begins"),
    ("range of widths", "workers: {hosts: {'a[01:100]': }}", "ends of different length"),
    ("same ssh", "control_plane: {vars: {ansible_host: 192.0.2.9}, hosts: {a: {ip: 192.0.2.1}, b: {ip: 192.0.2.2}}}",
     "hosts a and b have the same SSH address 192.0.2.9:22"),
]


@pytest.mark.parametrize("content, words", [row[1:] for row in DOCUMENTS], ids=[row[0] for row in DOCUMENTS])
def test_documents(tmp_path: Path, content: str | bytes, words: str) -> None:
    assert words in refusal(tmp_path, content)


def control_planes(count: int) -> str:
    return "control_plane: {hosts: {" + ", ".join(f"e-{n}: {{ip: 192.0.2.{n}}}" for n in range(1, count + 1)) + "}}"


def test_number_of_etcd_members(tmp_path: Path) -> None:
    assert "at most 5 are supported" in refusal(tmp_path, control_planes(7))


@pytest.mark.parametrize("count, words", [(1, ""), (2, "an even number tolerates no more failures"), (4, "loss of 1, as 3 do"), (5, "")])
def test_an_even_number_of_members_is_noted(tmp_path: Path, count: int, words: str) -> None:
    """A cluster that runs passes through it; that none is born so is apply's to say."""
    path = tmp_path / "i.yaml"
    path.write_text(control_planes(count) + "\nall: {vars: {ansible_user: root}}\n")
    notes = read(path).notes
    assert any(words in note for note in notes) if words else not notes


def test_all_problems_are_told_in_order_and_no_more_than_fit(tmp_path: Path) -> None:
    message = refusal(tmp_path, "workers:\n  hosts:\n" + "".join(f"    w/{n}:\n" for n in range(80)))
    lines = [line for line in message.splitlines() if "is not a host name" in line]
    assert len(lines) == 50
    assert lines[0].startswith("i.yaml:3:5:") and lines[-1].startswith("i.yaml:52:5:")
    assert "more problems" in message


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    with path.open("wb") as file:
        file.truncate(50 * 1024 * 1024)
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="larger than 1 MiB"):
        load(path)
    assert time.perf_counter() - begin < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


@pytest.mark.parametrize("content", [b"[" * 1_000_000, b"{" * 1_000_000, b"- " * 500_000, b"a" * 1_000_000, b"? " * 500_000,
                                     b"a: &a [*a]", b"&a" * 300_000, b'"' + b"\\" * 900_000, b"[a]\n" * 250_000,
                                     b"a: " + b"9" * 900_000,
                                     b"".join(b'g%d: {hosts: {"w[1:4999]": }}\n' % n for n in range(50)),
                                     b"".join(b'g%d: {hosts: {"w[1:4999]": }}\n' % n for n in range(10_000)),
                                     b"".join(b"a%d: {children: {a%d: }}\n" % (n, n + 1) for n in range(10_000))
                                     + b'a10000: {hosts: {"w[1:4999]": }}\n'])
def test_bombs(tmp_path: Path, content: bytes) -> None:
    begin = time.process_time()
    refusal(tmp_path, content)
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("name, words", [("missing.yaml", "No such file"), (".", "is a folder without inventories"), ("a\0b", "null"), ("x" * 300, "name too long")])
def test_files_that_cannot_be_read(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(tmp_path / name)


def test_all_mistakes_of_a_host_are_reported(tmp_path: Path) -> None:
    variables = "ansible_host: bad host, ansible_port: 99999, ip: 1.2.3, clusterctl_host_key: x, ansible_ssh_timeout: 0, clusterctl_labels: [a]"
    message = refusal(tmp_path, f"control_plane: {{hosts: {{n1: {{{variables}}}}}}}")
    assert message.count("[inventory.value]") == 6 and "no IPv4 address" not in message


@pytest.mark.parametrize(("count", "refused"), [(52, False), (53, True)])
def test_a_name_is_no_longer_than_its_certificate_allows(tmp_path: Path, count: int, refused: bool) -> None:
    text = f"control_plane: {{hosts: {{{'n' * count}: {{ip: 192.0.2.1}}}}}}"
    if refused:
        assert "[inventory.host-name]" in refusal(tmp_path, text)
    else:
        (tmp_path / "i.yaml").write_text(text)
        assert load(tmp_path / "i.yaml")


FILES = """\
control_plane: {hosts: {n1: {ip: 192.0.2.1}}}
all:
  vars:
    cluster:
      files: [{path: /etc/a, source: nope.txt},
              {path: /etc/b, template: nope.j2}, {path: /etc/c, source: .}]
      registries:
        a.example: {ca: nope.pem, username: u, password: {file: nope.pw},
                    mirrors: [{url: "https://m.example", client_cert: "~nosuchuser/x", client_key: i.yaml}]}
"""


def test_files_that_are_missing_are_reported_together_where_they_are_named(tmp_path: Path) -> None:
    lines = refusal(tmp_path, FILES).splitlines()
    found = [(line.split(":")[1], line.rpartition("[")[2].rstrip("]")) for line in lines if line.startswith("i.yaml:")]
    assert found == [("5", "inventory.file-unreadable"), ("6", "inventory.file-unreadable"), ("6", "inventory.file-unreadable"),
                     ("8", "inventory.file-unreadable"), ("8", "inventory.secret-missing"), ("9", "inventory.file-unreadable")]
