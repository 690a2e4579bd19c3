"""Real programs do their work inside a mount, and the flist holds what they made."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.e2e.commands import Home, shell
from tests.e2e.test_roundtrip import blocks_in_directory
from tests.independent_reader import read_flist
from tests.snapshots import assert_flist_equals, snapshot


@pytest.fixture(params=[(), ("--allow-other",)], ids=["own", "allow-other"])
def mounted(request: pytest.FixtureRequest, home: Home, mountpoint: Path) -> Path:
    """A mount, with the kernel's permission checks and without."""
    home.run("mount", mountpoint, *request.param)
    return mountpoint


def seal_and_compare(home: Home, mountpoint: Path) -> None:
    wanted = snapshot(mountpoint)
    home.run("seal", "out.flist")
    assert_flist_equals(
        read_flist(home.path / "out.flist"), wanted, blocks_in_directory(home), fast=True, ignore={"ctime"}
    )


def test_compiling_and_installing(home: Home, mounted: Path) -> None:
    shell(
        r"""
        mkdir project && cd project
        cat > hello.c <<'C'
        #include <stdio.h>
        #include "config.h"
        int main(void) { puts(GREETING); return 0; }
C
        cat > configure <<'SH'
        #!/bin/sh
        echo "#define GREETING \"hello from $1\"" > config.h
        sed "s|@PREFIX@|$1|" Makefile.in > Makefile
SH
        printf 'hello: hello.o\n\tcc -o $@ $^\n' > Makefile.in
        printf 'hello.o: hello.c config.h\n\tcc -c -o $@ hello.c\n' >> Makefile.in
        printf 'install: hello\n\tinstall -D -m 755 hello @PREFIX@/bin/hello\n' >> Makefile.in
        printf '\tln -sf hello @PREFIX@/bin/hi\n' >> Makefile.in
        chmod +x configure && ./configure "$PWD/../usr" && make -j2 && make install
        test "$(../usr/bin/hi)" = "hello from $PWD/../usr"
        make | grep 'hello.* is up to date'
        """.replace("\n        ", "\n"),
        cwd=mounted,
    )
    seal_and_compare(home, mounted)


def test_a_database(home: Home, mounted: Path) -> None:
    database = sqlite3.connect(mounted / "data.db")
    for mode in ("delete", "wal"):
        database.execute(f"pragma journal_mode={mode}")
        database.execute(f"create table {mode}_table(number integer primary key, text)")
        for number in range(0, 2000, 100):
            with database:
                rows = ((n, os.urandom(500).hex()) for n in range(number, number + 100))
                database.executemany(f"insert into {mode}_table values(?, ?)", rows)
    with database:
        database.execute("delete from delete_table where number % 3")
    database.execute("vacuum")
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()
    again = sqlite3.connect(mounted / "data.db")
    assert again.execute("select count(*) from wal_table").fetchone() == (2000,)
    assert again.execute("select count(*) from delete_table").fetchone() == (667,)
    again.close()
    seal_and_compare(home, mounted)


def test_a_python_environment_with_a_package(home: Home, mountpoint: Path, source: Path) -> None:
    home.run("mount", mountpoint)
    (source / "pyproject.toml").write_text(
        '[project]\nname = "greeter"\nversion = "1"\n[build-system]\nrequires = []\n'
        'build-backend = "backend"\nbackend-path = ["."]\n'
    )
    (source / "backend.py").write_text(
        "import zipfile, pathlib\n"
        "def build_wheel(directory, config_settings=None, metadata_directory=None):\n"
        "    name = 'greeter-1-py3-none-any.whl'\n"
        "    info = 'greeter-1.dist-info/'\n"
        "    with zipfile.ZipFile(pathlib.Path(directory, name), 'w') as wheel:\n"
        "        wheel.writestr('greeter.py', 'print(\"hello\")')\n"
        "        wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: greeter\\nVersion: 1')\n"
        "        wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nTag: py3-none-any\\n')\n"
        "        wheel.writestr(info + 'RECORD', '')\n"
        "    return name\n"
    )
    shell(
        """
        python3 -m venv env
        env/bin/python -m pip -q --disable-pip-version-check install --no-index "$SOURCE"
        test "$(env/bin/python -m greeter)" = hello
        """,
        cwd=mountpoint,
        SOURCE=str(source),
    )
    seal_and_compare(home, mountpoint)


def test_packages_and_archives(home: Home, mounted: Path, source: Path) -> None:
    shell(
        """
        mkdir -p package/DEBIAN package/usr/share/thing
        echo "$CONTROL" > package/DEBIAN/control
        head -c 2000000 /dev/urandom > package/usr/share/thing/data
        ln package/usr/share/thing/data package/usr/share/thing/same
        dpkg-deb --root-owner-group -b package thing.deb
        tar -cf linked.tar -C package usr
        tar --hard-dereference -cf copied.tar -C package usr
        """,
        cwd=source,
        CONTROL="Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: n <a@b.c>\nDescription: thing",
    )
    shell(
        """
        dpkg-deb -x "$SOURCE/thing.deb" deb
        mkdir linked copied
        tar -xf "$SOURCE/linked.tar" -C linked && tar -xf "$SOURCE/copied.tar" -C copied
        test "$(stat -c %h linked/usr/share/thing/data)" = 2
        test "$(stat -c %h copied/usr/share/thing/data)" = 1
        cmp linked/usr/share/thing/data copied/usr/share/thing/same
        cmp linked/usr/share/thing/data deb/usr/share/thing/same
        tar -cf back.tar linked && tar -df back.tar
        """,
        cwd=mounted,
        SOURCE=str(source),
    )
    seal_and_compare(home, mounted)


def test_sorting_and_sparse_copies(home: Home, mounted: Path) -> None:
    shell(
        """
        seq 1 300000 | shuf --random-source=<(yes) > numbers
        sort -n -S 1M -T . numbers > sorted && seq 1 300000 | cmp - sorted
        sort -n -o numbers numbers && cmp numbers sorted
        truncate -s 20M holes && echo middle | dd of=holes bs=1 seek=10000000 conv=notrunc status=none
        test "$(du -k holes | cut -f1)" -lt 1100
        cp --sparse=always holes sparse && cp --sparse=never holes full && cmp holes sparse && cmp holes full
        test "$(du -k sparse | cut -f1)" -lt 1100
        test "$(du -k full | cut -f1)" -gt 20000
        """,
        cwd=mounted,
    )
    seal_and_compare(home, mounted)


def test_mirroring_twice(home: Home, mounted: Path, source: Path) -> None:
    for number in range(300):
        (source / f"dir{number % 7}").mkdir(exist_ok=True)
        (source / f"dir{number % 7}" / str(number)).write_bytes(os.urandom(number * 10))
    mirror = 'rsync -a --delete --checksum "$SOURCE"/ .'
    shell(mirror, cwd=mounted, SOURCE=str(source))
    shutil.rmtree(source / "dir3")
    (source / "dir4/4").write_text("changed")
    (source / "dir3").write_text("a file where a directory was")
    shell(mirror, cwd=mounted, SOURCE=str(source))
    assert not shell(f"{mirror} --itemize-changes", cwd=mounted, SOURCE=str(source))
    shell('diff -r "$SOURCE" .', cwd=mounted, SOURCE=str(source))
    seal_and_compare(home, mounted)
