"""Checking a hub that is not served."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.e2e.schemas import check_answer
from tests.hub.conftest import RunningHub, archive, running_hub, uploaded


def checked(hub: RunningHub, *options: str, code: int = 0) -> dict[str, str]:
    """The faults by their paths."""
    done = hub.run("hub", "check", "--data", hub.data, "--json", *options, code=code)
    check_answer("hub", done.stdout, code)
    return {each["path"]: each["why"] for each in json.loads(done.stdout)["faults"]}


def test_everything_is_looked_at(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub:
        with hub.client("alice") as client:
            for name in ("one", "two", "three"):
                uploaded(client, archive({"file": name.encode() * 1000}), f"{name}.tar.gz")
                client.get(f"/alice/{name}.flist.md5")
            client.get("/api/flist/me/one/link/first")
            client.get("/api/flist/me/v1/app/tag/alice/two")
            client.get("/api/flist/me/stable/crosstag/alice/v1")
        assert "another process serves" in hub.run("hub", "check", "--data", hub.data, code=6).stderr
        hub.stop()
        assert checked(hub) == {}
        said = hub.run("hub", "check", "--data", hub.data).stdout
        assert said == "no faults in 1 repository with 3 flists and 3 links\n"

        users = hub.data / "users/alice"
        (users / "one.flist").unlink()
        status = (users / "two.flist").stat()
        raw = bytearray((users / "two.flist").read_bytes())
        raw[-1] ^= 1
        (users / "two.flist").write_bytes(raw)
        os.utime(users / "two.flist", ns=(status.st_atime_ns, status.st_mtime_ns))
        (users / "four.flist").write_bytes(b"no flist")
        for block in (hub.data / "blocks").glob("*/*/*"):
            block.unlink()
        found = checked(hub, code=10)
        assert found.keys() == {
            "alice/first.flist",
            "alice/four.flist",
            "alice/three.flist",
            "alice/two.flist",
        }
        assert found["alice/first.flist"] == "it leads nowhere"
        assert found["alice/four.flist"].startswith("it cannot be read")
        assert found["alice/three.flist"] == "the store lacks blocks of file"
        repaired = checked(hub, "--repair", "--no-store", code=10)
        assert "alice/three.flist" not in repaired
        (users / "four.flist").unlink()
        (users / "first.flist").unlink()
        (users / "two.flist").unlink()
        assert checked(hub, "--no-store", code=10) == {"alice/tags/v1/app.flist": "it leads nowhere"}
        (hub.data / "index.sqlite3").write_bytes(b"damaged" * 1000)
        assert len(checked(hub, "--no-store", code=10)) == 1  # it is made anew
        (users / ".tag-v1/app.flist").unlink()
        (users / ".tag-v1").rmdir()
        assert checked(hub, "--no-store", code=10) == {"alice/stable": "it leads to a tag that is not there"}
        accounts = (hub.data / "accounts.sqlite3").read_bytes()
        for suffix in ("", "-wal", "-shm"):
            (hub.data / f"accounts.sqlite3{suffix}").unlink(missing_ok=True)
        (hub.data / "accounts.sqlite3").write_bytes(b"damaged" * 1000)
        assert "the accounts of the hub" in hub.run("hub", "user", "list", "--data", hub.data, code=9).stderr
        (hub.data / "accounts.sqlite3").write_bytes(accounts)
        hub.start()
