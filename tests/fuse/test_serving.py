"""A mount is served whatever the kernel does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# The kernel takes back the request of a program that is killed, even once the device was seen to be readable:
# here a wait returns, once, although nothing is there to be read.
PROGRAM = """
import errno, stat, sys
from pathlib import Path
import pyfuse3, trio
from flistfs.fuse.handlers import Handlers, answered
from flistfs.fuse.serving import MountServer

class Operations(Handlers):
    @answered
    async def getattr(self, inode, ctx):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_mode = inode, stat.S_IFDIR | 0o755
        entry.attr_timeout = 0  # each stat is a request
        return entry

    @answered
    async def getxattr(self, inode, name, ctx):
        raise pyfuse3.FUSEError(errno.ENOSYS)

async def main():
    mountpoint = Path(sys.argv[1])
    server = MountServer(mountpoint, max_requests=9, low_latency=False)
    lowlevel = pyfuse3.trio.lowlevel
    wait = lowlevel.wait_readable
    announced, misled = trio.Event(), trio.Event()

    async def wait_or_mislead(descriptor):
        if announced.is_set() and not misled.is_set():
            misled.set()
        else:
            await wait(descriptor)

    lowlevel.wait_readable = wait_or_mislead

    async def end():
        await announced.wait()
        await trio.to_thread.run_sync(mountpoint.stat)
        await misled.wait()
        await server.unmount()

    with server.mounted(Operations(server.answering.set), []) as signals:
        await server.serve(signals, end, announce=announced.set)

trio.run(main)
"""


def test_a_request_that_was_taken_back_does_not_stop_anything(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], check=True, timeout=60)
