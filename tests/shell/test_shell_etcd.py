"""What a machine reports of etcd's data, and how it becomes a learner."""

from __future__ import annotations

import pytest
from shell_box import Box

from clusterctl.resources.etcd_member import EtcdLearner, Formed
from clusterctl.shell import Script

LISTED = "1, started, cp-1, https://10.0.0.1:2380, https://10.0.0.1:2379, false"
JOIN = EtcdLearner(name="cp-2", peer_url="https://10.0.0.2:2380", endpoints=("https://10.0.0.1:2379",), token="t")
FORMED = Formed(path="/etc/etcd/formed", name="cp-2", content=b"This member has served.\n")


def lay(box: Box, *paths: str) -> None:
    """Make the files of a member: ``formed``, ``initial.env``, and the log in its data folder."""
    (box.etc / "etcd").mkdir(exist_ok=True)
    for path in paths:
        place = box.path / "etcd/member/wal" if path == "wal" else box.etc / "etcd"
        place.mkdir(parents=True, exist_ok=True)
        (place / ("0-0.wal" if path == "wal" else path)).write_text("here\n")


@pytest.mark.parametrize(("paths", "state", "joined", "marked"), [
    ((), "", False, False),
    (("initial.env",), "", True, False),
    (("wal", "initial.env"), "begun", True, False),
    (("wal", "initial.env", "formed"), "formed", True, True),
    (("initial.env", "formed"), "lost", False, False),
])
def test_the_state_of_the_data(box: Box, paths: tuple[str, ...], state: str, joined: bool, marked: bool) -> None:
    lay(box, *paths)
    result = box.run(Script(probes=(*JOIN.probes(), *FORMED.probes())))
    assert result.seen.get("etcd_data", "cp-2") == [state]
    assert (JOIN.observed(result.seen) is not None, FORMED.observed(result.seen) is not None) == (joined, marked)


def etcdctl(box: Box, *lines: str) -> None:
    """An etcdctl that lists these members, and those that are added."""
    (box.root / "bin").mkdir(parents=True, exist_ok=True)
    listed = box.path / "members"
    listed.write_text("".join(f"{line}\n" for line in lines))
    path = box.root / "bin/etcdctl"
    path.write_text(f"""#!/bin/dash
while [ "$1" != member ]; do shift; done
case $2 in
list) cat {listed} ;;
add) echo "added $3" >>{box.path}/added
	if read -r refused <{box.path}/refused; then sed -i 1d {box.path}/refused; echo "$refused" >&2; [ "$refused" = lost ] || exit 1; echo "2, unstarted, , ${{5#--peer-urls=}}, , true" >>{listed}; exit 1; fi
	echo "2, unstarted, , ${{5#--peer-urls=}}, , true" >>{listed} ;;
esac
""")
    path.chmod(0o755)
    (box.path / "refused").touch()


def test_a_learner_that_etcd_refuses_for_now_is_added_later(box: Box) -> None:
    """A voter that was promoted just now, and then an answer that was lost."""
    lay(box)
    etcdctl(box, LISTED)
    (box.path / "refused").write_text("Error: etcdserver: unhealthy cluster\n" * 2 + "lost\n")
    result = box.run(Script(steps=[("etcd_join", "cp-2", "https://10.0.0.2:2380", "https://10.0.0.1:2379", "t")]))
    assert result.failure is None, result
    assert (box.path / "added").read_text().count("added") == 3
    assert "cp-2=https://10.0.0.2:2380" in (box.etc / "etcd/initial.env").read_text()


def test_a_learner_that_etcd_never_adds_does_not_start(box: Box) -> None:
    etcdctl(box, LISTED)
    (box.path / "refused").write_text("Error: etcdserver: unhealthy cluster\n" * 9)
    lay(box)
    result = box.run(Script(steps=[("etcd_join", "cp-2", "https://10.0.0.2:2380", "https://10.0.0.1:2379", "t")],
                            functions="join_seconds=1"))
    assert result.failure and "etcd.not-added" in result.failure.output and "unhealthy cluster" in result.failure.output
    assert not (box.etc / "etcd/initial.env").exists()


@pytest.mark.parametrize(("others", "added", "code"), [
    ((), True, 0),
    (("2, unstarted, , https://10.0.0.2:2380, , true",), False, 0),
    # Another member that has never started does not stand for ours.
    (("3, unstarted, , https://10.0.0.3:2380, , true", "2, started, cp-2, https://10.0.0.2:2380, https://10.0.0.2:2379, false"), False, 1),
    (("2, started, cp-2, https://10.0.0.2:2380, https://10.0.0.2:2379, false",), False, 1),
])
def test_a_learner_takes_only_a_place_that_has_never_started(box: Box, others: tuple[str, ...], added: bool, code: int) -> None:
    lay(box, "formed", "initial.env")
    etcdctl(box, LISTED, *others)
    result = box.run(Script(steps=[("etcd_join", "cp-2", "https://10.0.0.2:2380", "https://10.0.0.1:2379", "t")]))
    assert (result.failure.code if result.failure else 0) == code, result
    assert (box.path / "added").exists() is added
    if code:
        assert result.failure and "etcd.member-exists" in result.failure.output
        assert (box.etc / "etcd/formed").exists() and (box.etc / "etcd/initial.env").read_text() == "here\n"
    else:
        assert not (box.etc / "etcd/formed").exists()
        text = (box.etc / "etcd/initial.env").read_text()
        assert "cp-2=https://10.0.0.2:2380" in text and "STATE=existing" in text
