"""Whatever a file holds: a cluster or a refusal, never a traceback."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterctl.errors import InputError, Problems
from clusterctl.inventory import load

EXAMPLES = sorted((Path(__file__).parents[3] / "inventories").glob("*.yaml"))
REAL = [path for path in sorted((Path(__file__).with_name("real")).rglob("*")) if path.is_file() and path.parent.name[-5:] != "_vars"]
CONTENTS = [path.read_bytes() for path in (*EXAMPLES, *REAL)]
TOKENS = [
    b'{', b'}', b'[', b']', b':', b': ', b'- ', b'? ', b'&a ', b'*a', b'!x ', b'!!set ', b'|\n', b'>\n', b"'", b'"', b'#',
    b'\t', b'\n', b'\x00', b'\xff', b'<<', b'null', b'1.36', b'0x1', b'1_0', b'22:30', b'.inf', b'.nan', b'2024-01-01',
    b'%YAML 2.0\n', b'---\n', b'...\n', b'{{ x }}', b'[1:3]', b'$(id)', b'\xe2\x80\xae', b"9" * 5000, b'-1', b'1e999',
    b'true', b'@', b'`', b'=', b'\xed\xa0\x80', b'[a]\n', b'[a:children]\n', b'[all:vars]\n', b'\\', b';', b'x=1', b'$ANSIBLE_VAULT;1.1;AES256\n',
    b'{"_meta":', b'!vault |\n', b'*a', b'<<: *a',
]
# `deadline` off: the machine that runs this may be busy.
QUIET = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))


def outcome(content: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inventory.yaml"
        path.write_bytes(content)
        try:
            load(path)
        except (InputError, Problems) as error:
            assert error.exit_code == 2
            return str(error)
    return "read"


@QUIET
@given(st.sampled_from(CONTENTS), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(TOKENS)), min_size=1,
                                           max_size=4))
def test_mutated_examples(content: bytes, edits: list[tuple[float, int, bytes]]) -> None:
    for where, removed, token in edits:
        position = int(where * len(content))
        content = content[:position] + token + content[position + removed:]
    assert outcome(content)


SCALARS = st.one_of(st.text(max_size=12), st.sampled_from([token.decode("latin-1") for token in TOKENS]))
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(
    st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
    st.dictionaries(SCALARS, inner, max_size=3).map(lambda items: "{" + ", ".join(f"{k}: {v}" for k, v in items.items()) + "}"),
), max_leaves=6)
NAMES = st.sampled_from([
    "ansible_host", "ansible_port", "ansible_user", "ansible_become", "clusterctl_labels", "clusterctl_taints", "node_taints",
    "ip", "clusterctl_address", "ansible_group_priority", "ansible_ssh_common_args",
])
SETTINGS = st.sampled_from([
    "name", "kubernetes", "versions", "endpoint", "network", "artifacts", "addons", "kubelet", "scheduler", "max_unavailable",
    "certificate_days", "network: {pods", "kubelet: {config", "endpoint: {address",
])


@QUIET
@given(NAMES, VALUES, SETTINGS, VALUES)
def test_any_value_anywhere(name: str, value: str, setting: str, chosen: str) -> None:
    close = "}" if "{" in setting else ""
    text = (f"all: {{vars: {{cluster: {{{setting}: {chosen}{close}}}}}}}\n"
            f"control_plane: {{hosts: {{a: {{{name}: {value}}}}}, vars: {{ip: 192.0.2.1}}}}\n")
    assert outcome(text.encode("utf-8", "replace"))


@QUIET
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    assert outcome(content)
