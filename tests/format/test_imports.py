"""What the format must not know: the network, FUSE, event loops."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import flistfs.format


def test_format_imports_no_network_fuse_or_event_loop() -> None:
    modules = [f"flistfs.format.{module.name}" for module in pkgutil.iter_modules(flistfs.format.__path__)]
    assert "flistfs.format.codecs" in modules
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert set(output.split()).isdisjoint({"trio", "redis", "hiredis", "pyfuse3", "yaml", "flistfs.stores"})
