"""What a Python program may use of flistfs: what the commands do, with the same engine.

    with flistfs.Session("/tmp/state", store="ardb://host:16379") as session:
        session.add("/opt", "/etc/hosts")
        session.seal("out.flist")
    with flistfs.open("out.flist") as flist, flist.open_file("hosts") as file:
        print(file.read())

- Nothing prints, and the environment is not asked: what commands take from it is an argument here.
- Errors reported to the user are of `flistfs.errors`, all of them a `FlistfsError`. Its text is one line that
  says what is wrong and what to do; arguments that it names stand in backticks.
- Calls block until they are done, in threads of any kind, whether an event loop runs there or not. Progress
  is reported from other threads.
- Paths of this machine are texts, bytes or `os.PathLike`. Paths in an flist are bytes where they are given
  back, and may be written as any of those.
- A store is a URL or the path of a router.yaml; without one it is the directory of blocks of the user. Its
  password goes into no file, log or error.
"""

from __future__ import annotations

import logging

# A program that has set up no logging is to see nothing on standard error.
logging.getLogger("flistfs").addHandler(logging.NullHandler())
