"""Who may do what: access(2), `test -x` and execve agree, in every kind of mount."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.commands import TIMEOUT, Home, shell, umount

AS_ROOT = os.geteuid() == 0

NOBODY = 65534
GROUP = 54321

SCRIPT = "#!/bin/sh\necho ran\n"

# Name: mode, owner and group.
FILES = {
    "plain": (0o644, 0, 0),
    "closed": (0o000, 0, 0),
    "others-run": (0o641, 0, 0),
    "nobodys": (0o700, NOBODY, NOBODY),
    "groups": (0o640, 0, GROUP),
}

# Name: how root may access it. Root may everything, but execute only what somebody may.
AS_ROOT_MAY = {
    "plain": "rw",
    "closed": "rw",
    "others-run": "rwx",
    "nobodys": "rwx",
    "groups": "rw",
    "closed-directory": "rwx",
}

# The same for somebody else with the supplementary group `GROUP`.
AS_NOBODY_MAY = {
    "plain": "r",
    "closed": "",
    "others-run": "x",
    "nobodys": "rwx",
    "groups": "r",
    "closed-directory": "",
}

OWN = [[], ["--rootfs"], ["--allow-other"], ["-o", "allow_other"]]
WITH_OTHERS = OWN[1:]

PROBE = f"""
import json, os, sys
os.chdir(sys.argv[1])
if len(sys.argv) > 2:
    os.setgroups([{GROUP}]); os.setgid({NOBODY}); os.setuid({NOBODY})
kinds = {{"r": os.R_OK, "w": os.W_OK, "x": os.X_OK}}
def may(name):
    return "".join(kind for kind, bit in kinds.items() if os.access(name, bit))
print(json.dumps({{name: may(name) for name in {sorted(AS_ROOT_MAY)}}}))
"""


def make_tree(top: Path) -> None:
    top.chmod(0o755)
    for name, (mode, uid, gid) in FILES.items():
        (top / name).write_text(SCRIPT)
        os.chown(top / name, uid, gid)
        (top / name).chmod(mode)
    (top / "closed-directory").mkdir(mode=0)


def found_by(top: Path, *, nobody: bool = False) -> dict[str, str]:
    """How everything may be accessed, asked by a process of root's or of somebody else's."""
    command: list[str | Path] = [sys.executable, "-c", PROBE, top, *(["drop"] if nobody else [])]
    done = subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def without_writing(expected: dict[str, str]) -> dict[str, str]:
    return {name: may.replace("w", "") for name, may in expected.items()}


def assert_execution_agrees(top: Path) -> None:
    """What root runs is what `test -x` says it may, and a shell looks on in its PATH."""
    for name in FILES:
        may = "x" in AS_ROOT_MAY[name]
        for shell_ in ("bash", "sh"):
            tested = subprocess.run([shell_, "-c", f"[ -x {name} ]"], cwd=top, check=False, timeout=TIMEOUT)
            assert (tested.returncode == 0) == may, (name, shell_)
        if may:
            assert subprocess.run([top / name], capture_output=True, check=True).stdout == b"ran\n"
        else:
            with pytest.raises(PermissionError):
                subprocess.run([top / name], check=False)


def assert_path_is_searched_on(home: Home, top: Path) -> None:
    tools = home.path / "tools"
    tools.mkdir()
    (tools / "plain").write_text("#!/bin/sh\necho the right one\n")
    (tools / "plain").chmod(0o755)
    for shell_ in ("bash", "sh"):
        assert shell(f"PATH={top}:{tools}:$PATH {shell_} -c plain", cwd=home.path) == "the right one\n"


@pytest.mark.skipif(not AS_ROOT, reason="only root can give files to others")
@pytest.mark.parametrize("options", OWN, ids=" ".join)
def test_in_a_session(home: Home, mountpoint: Path, options: list[str]) -> None:
    home.run("mount", mountpoint, *options)
    make_tree(mountpoint)
    assert found_by(mountpoint) == AS_ROOT_MAY
    assert_execution_agrees(mountpoint)
    assert_path_is_searched_on(home, mountpoint)
    home.run("seal", "out.flist")


@pytest.mark.skipif(not AS_ROOT, reason="only root can give files to others")
@pytest.mark.parametrize("options", OWN, ids=" ".join)
def test_in_a_sealed_flist(home: Home, mountpoint: Path, source: Path, options: list[str]) -> None:
    make_tree(source)
    home.run("pack", source, "a.flist")
    home.run("mount", "--read-only", "a.flist", mountpoint, *options)
    assert found_by(mountpoint) == without_writing(AS_ROOT_MAY)
    assert_execution_agrees(mountpoint)
    assert_path_is_searched_on(home, mountpoint)
    umount(mountpoint)


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
@pytest.mark.parametrize("options", WITH_OTHERS, ids=" ".join)
def test_as_another_user(home: Home, mountpoint: Path, source: Path, options: list[str]) -> None:
    home.run("mount", mountpoint, *options)
    make_tree(mountpoint)
    assert found_by(mountpoint, nobody=True) == AS_NOBODY_MAY
    home.run("seal", "out.flist")
    home.run("mount", "--read-only", "out.flist", mountpoint, *options)
    assert found_by(mountpoint, nobody=True) == without_writing(AS_NOBODY_MAY)
    umount(mountpoint)


def test_nothing_that_has_no_x_bit_can_be_executed(home: Home, mountpoint: Path) -> None:
    """As whoever runs the tests."""
    home.run("mount", mountpoint)
    for name, mode in (("plain", 0o644), ("tool", 0o755)):
        (mountpoint / name).write_text(SCRIPT)
        (mountpoint / name).chmod(mode)
    assert [os.access(mountpoint / name, os.X_OK) for name in ("plain", "tool", ".")] == [False, True, True]
    (mountpoint / "tool").chmod(0o600)
    assert not os.access(mountpoint / "tool", os.X_OK)
    assert not os.access(mountpoint / "none", os.F_OK)
    home.run("seal", "out.flist")
    home.run("mount", "--read-only", "out.flist", mountpoint)
    assert [os.access(mountpoint / "plain", bit) for bit in (os.R_OK, os.W_OK, os.X_OK)] == [
        True,
        False,
        False,
    ]
    umount(mountpoint)


@pytest.mark.skipif(not AS_ROOT, reason="other users' mounts have the kernel check permissions")
def test_copying_asks_for_no_permission(home: Home, mountpoint: Path, source: Path) -> None:
    """What is answered here must cost nothing where many files are written."""
    for number in range(100):
        (source / str(number)).write_text(str(number))
    home.run("mount", mountpoint)
    shell(
        f"cp -r {source}/. {mountpoint} && tar -C {source} -cf - . | tar -C {mountpoint} -xf -", cwd=home.path
    )
    requests = home.status()["requests"]
    assert requests["create"] >= 100
    assert requests.get("access", 0) <= 1  # tar goes to its directory
    home.run("seal", "out.flist")
