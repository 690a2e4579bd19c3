"""How scripts/bench shows what it has measured."""

from __future__ import annotations

import math
import statistics
from typing import Any

MIB = 1 << 20


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each number, and the last of any other value."""
    found: dict[str, Any] = {}
    for name, value in rounds[-1].items():
        values = [each[name] for each in rounds]
        if isinstance(value, dict):
            found[name] = medians(values)
        else:
            found[name] = statistics.median(values) if isinstance(value, int | float) else value
    return found


def print_table(title: str, size: int, found: dict[str, Any]) -> None:
    floor = found.get("empty file system", math.nan)
    limit = found.get("codec, two cores", math.nan)
    print(f"\n{title} ({size / MIB:.0f} MiB)\n")
    print(f"{'':28}{'seconds':>9}{'/ floor':>9}{'codec /':>9}")
    print(f"check of the store: {1e6 * found.pop('check of a block', math.nan):.1f} µs a block")
    for what, value in found.items():
        seconds = value["total"] if isinstance(value, dict) else value
        print(f"{what:28}{seconds:9.2f}{seconds / floor:9.2f}{limit / seconds:9.2f}")
        if isinstance(value, dict):
            requests = sum(value["requests"].values()) / max(value["files"], 1)
            print(f"    {1e6 * value['total'] / value['entries']:.0f} µs an entry in all")
            print(
                f"    copy {value['copy']:.2f}, sync {value['sync']:.2f}, seal {value['seal']:.2f} "
                f"({1e6 * value['seal'] / value['entries']:.0f} µs an entry); "
                f"{requests:.1f} requests a file\n"
                f"    daemon: {value['cpu']:.1f} s CPU, {value['memory'] / MIB:.0f} MiB; "
                f"encoders: {value['encoders_cpu']:.1f} s CPU, {value['encoders_memory'] / MIB:.0f} MiB"
            )


def print_special(found: dict[str, Any]) -> None:
    print()
    for what, value in found.items():
        print(f"{what:45}{value:9.2f}")


def print_growth(found: dict[str, Any]) -> None:
    print(f"\n{'daemon, µs after':20}{'1,000':>10}{'100,000 files':>16}{'ratio':>8}\n")
    for what, value in found.items():
        print(f"{what:20}{1e6 * value['few']:10.0f}{1e6 * value['many']:16.0f}{value['ratio']:8.2f}")
