"""The process that packs one upload: the archive comes on standard input, one JSON object goes out.

python -m flistfs.hub.packer '{"out": PATH, "store": URL, "format": NAME}'
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from flistfs.authoring import offline
from flistfs.authoring.request import AddRequest, Passwords, SealRequest
from flistfs.errors import FlistfsError
from flistfs.stores.url import PASSWORD_VARIABLE
from flistfs.util.progress import quiet


def main() -> NoReturn:
    """Pack, say what was packed or why not, and end with the error's exit code."""
    config = json.loads(sys.argv[1])
    request = SealRequest(Path(config["out"]))
    passwords = Passwords(os.environ.pop(PASSWORD_VARIABLE, None), None)
    try:
        _, summary = offline.pack(
            "-", config["store"], config["format"], passwords, request, AddRequest(()), quiet
        )
    except FlistfsError as error:
        sys.stdout.write(json.dumps({"error": str(error)}))
        sys.stdout.flush()
        sys.exit(error.exit_code)
    sys.stdout.write(json.dumps({"packed": summary.as_dict()}))
    sys.stdout.flush()
    sys.exit(0)


if __name__ == "__main__":
    main()
