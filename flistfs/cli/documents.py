"""What commands answer with `--json`: one form for one thing, whichever command it is.

`answers` prints them; docs/schemas has a JSON Schema of each.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flistfs.cli.answers import absolute
from flistfs.cli.messages import spoken
from flistfs.cli.nodes import counts_by_kind, device
from flistfs.tree.node import Kind, Node

if TYPE_CHECKING:
    from flistfs.api.by_mountpoint import AddSummary, BaseSummary, SealSummary, Started
    from flistfs.api.checking import Verified
    from flistfs.api.comparing import Difference
    from flistfs.api.converting import Converted
    from flistfs.api.extracting import Extracted
    from flistfs.api.flists import Fault, Flist, Owner, Router, Survey
    from flistfs.api.hubs import Checked, Token, User
    from flistfs.api.merging import Merged
    from flistfs.api.mounting import Mounted
    from flistfs.api.packing import Packed
    from flistfs.api.publishing import Published
    from flistfs.api.pushing import PushSummary
    from flistfs.api.routing import Routed
    from flistfs.api.status import Result, SessionStatus
    from flistfs.api.waiting import Ended
    from flistfs.errors import FlistfsError


def error(failure: FlistfsError) -> dict[str, Any]:
    """Return an error, which speaks of options where that of the Python interface speaks of arguments."""
    plain = failure.as_dict()
    for each in plain["paths"]:
        if each.get("why"):
            each["why"] = spoken(each["why"])
        for found in each.get("found", ()):
            found["flist"] = absolute(found["flist"])
    return plain | {"message": spoken(plain["message"])}


def paths(several: Iterable[bytes | str]) -> list[dict[str, str]]:
    """Return a list of paths."""
    return [{"path": os.fsdecode(path)} for path in several]


# Entries of flists


def entry(node: Node) -> dict[str, Any]:
    """Return an entry of an flist."""
    access = node.access
    plain: dict[str, Any] = {
        "path": os.fsdecode(node.path),
        "kind": node.kind.value,
        "mode": node.mode,
        "user": os.fsdecode(access.user) if access else None,
        "group": os.fsdecode(access.group) if access else None,
        "uid": access.uid if access else None,
        "gid": access.gid if access else None,
        "size": node.size,
        "mtime": node.mtime,
    }
    if node.target is not None:
        plain["target"] = os.fsdecode(node.target)
    if node.kind not in {Kind.DIRECTORY, Kind.FILE, Kind.LINK}:
        plain["device"] = device(node)
    if node.kind is Kind.FILE:
        plain["blocks"] = len(node.blocks)
    return plain


def entry_with_blocks(flist: Flist, node: Node) -> dict[str, Any]:
    """Return an entry of an flist with all that is known of it."""
    plain = entry(node) | {"ctime": node.ctime}
    if node.kind is Kind.FILE:
        plain["chunk_size"] = node.chunk_size
        plain["block_refs"] = [
            {"hash": flist.block_name(block.hash), "key": flist.block_name(block.key)}
            for block in node.blocks
        ]
    return plain


def difference(found: Difference) -> dict[str, Any]:
    """Return a difference of two flists."""
    return {
        "path": os.fsdecode(found.path),
        "change": found.change.value,
        "fields": list(found.fields),
        "before": entry(found.before) if found.before else None,
        "after": entry(found.after) if found.after else None,
    }


# Flists


def survey(package: str, flist: Flist, found: Survey) -> dict[str, Any]:
    """Return what an flist holds in sum."""
    router = flist.router
    return {
        "package": package,
        "format": flist.format,
        **counts_by_kind(found.kinds)._asdict(),
        "kinds": {kind.value: found.kinds[kind] for kind in Kind if found.kinds[kind]},
        "size": found.size,
        "blocks": found.blocks,
        "unique_blocks": found.unique_blocks,
        "unique_size": found.unique_size,
        "owners": [
            {
                "user": os.fsdecode(owner.user),
                "group": os.fsdecode(owner.group),
                "uid": owner.uid,
                "gid": owner.gid,
                "entries": count,
            }
            for owner, count in by_count(found.owners)
        ],
        "metadata": metadata(flist),
        "router": _router(router) if router else None,
        "largest": [{"path": os.fsdecode(path), "size": size} for size, path in found.largest],
    }


def metadata(flist: Flist) -> dict[str, str]:
    """Return what an flist says besides its tree."""
    return {name: os.fsdecode(value) for name, value in flist.metadata.items()}


def by_count(owners: Mapping[Owner, int]) -> list[tuple[Owner, int]]:
    """Return owners with the number of their entries, most first."""
    return sorted(owners.items(), key=lambda item: (-item[1], item[0].user, item[0].group, str(item[0])))


def _router(router: Router) -> dict[str, Any]:
    return {
        "pools": {
            pool.name: [{"range": str(rule.range), "url": rule.url} for rule in pool.rules]
            for pool in router.pools
        },
        "lookup": list(router.lookup),
        "cache": list(router.cache),
    }


def verified(package: str, report: Verified, store: str | None) -> dict[str, Any]:
    """Return what a check of an flist found; `store` is where its blocks were looked for."""
    return {
        "package": package,
        "store": store,
        **asdict(report),
        "faults": _faults(report.faults),
    }


def _faults(faults: Iterable[Fault]) -> list[dict[str, str]]:
    return [{"path": os.fsdecode(fault.path), "why": fault.what} for fault in faults]


def extracted(target: str, found: Extracted) -> dict[str, Any]:
    """Return what was extracted."""
    return {
        "target": target,
        **asdict(found),
        "devices": paths(found.devices),
        "faults": _faults(found.faults),
    }


def merged(out: str, result: Merged) -> dict[str, Any]:
    """Return the result of a merge."""
    return {
        "out": out,
        **counts_by_kind(result.kinds)._asdict(),
        "size": result.size,
        "clashes": result.clashes,
        "hidden": [
            {"flist": absolute(name), "count": len(each), "paths": paths(each)}
            for name, each in result.hidden.items()
        ],
        "package_size": result.package_size,
        "notes": list(map(spoken, result.notes)),
        "accepted_faults": result.accepted_faults,
    }


def routed(result: Routed) -> dict[str, Any]:
    """Return where an flist says now that its blocks are."""
    return {"out": result.out, "servers": list(result.servers), "notes": list(map(spoken, result.notes))}


def pushed(summary: PushSummary) -> dict[str, Any]:
    """Return what was brought to a store."""
    return {
        "store": summary.store,
        "new_blocks": summary.sent,
        "new_bytes": summary.sent_bytes,
        "shared_blocks": summary.blocks - summary.sent,
        "replaced_blocks": summary.replaced,
        "servers": list(summary.servers),
        "notes": list(map(spoken, summary.notes)),
        "faults": _faults(summary.faults),
        "fault_count": summary.fault_count,
    }


def published(done: Published) -> dict[str, Any]:
    """Return what was brought to a hub."""
    return asdict(done) | {"notes": list(map(spoken, done.notes))}


def hub_checked(found: Checked) -> dict[str, Any]:
    """Return what was looked at on a hub, and what is wrong with it."""
    return asdict(found) | {"faults": [{"path": path, "why": why} for path, why in found.faults]}


def hub_user(user: User) -> dict[str, Any]:
    """Return a user of a hub."""
    return asdict(user)


def hub_token(token: Token) -> dict[str, Any]:
    """Return what is known of a token of a hub."""
    return {**asdict(token), "scope": token.scope.value}


# Sessions


def session(mountpoint: str, state_directory: str) -> dict[str, Any]:
    """Return what names a session."""
    return {"mountpoint": mountpoint, "state_directory": state_directory}


def base(summary: BaseSummary | None) -> dict[str, Any] | None:
    """Return what a session started from, None if it started empty."""
    if summary is None:
        return None
    plain = asdict(summary)
    counts = plain.pop("hidden_counts")
    hidden = [
        {"flist": name, "count": counts[name], "paths": paths(each)} for name, each in summary.hidden.items()
    ]
    return plain | {"hidden": hidden}


def mounted(result: Mounted) -> dict[str, Any]:
    """Return what a mount shows."""
    return {
        **started(result),
        "resumed": result.resumed,
    }


def started(result: Started | Mounted) -> dict[str, Any]:
    """Return a session that was started."""
    return {
        **session(result.mountpoint, result.state_directory),
        "store": result.store,
        "format": result.format,
        "base": base(result.base),
    }


def added(summary: AddSummary) -> dict[str, Any]:
    """Return what was added to a session."""
    return asdict(summary) | {"replaced": paths(summary.replaced)}


def sealed(summary: SealSummary, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """Return what was sealed."""
    plain = asdict(summary) | {"notes": list(map(spoken, summary.notes))}
    return plain | {"warnings": list(warnings)}


def packed(result: Packed) -> dict[str, Any]:
    """Return what was packed: what was sealed, and what was left out of the source."""
    plain = sealed(result.sealed)
    found = added(result.added)
    return {
        **plain,
        "notes": [*plain["notes"], *found["notes"]],
        "left_out": found["left_out"],
        "left_out_count": found["left_out_count"],
        "image": None if result.image is None else asdict(result.image),
    }


def converted(result: Converted) -> dict[str, Any]:
    """Return what was converted: what was sealed, and what the format has no place for."""
    return {
        **sealed(result.sealed),
        "dropped_metadata": list(result.dropped),
        "accepted_faults": result.accepted_faults,
    }


def waited(ended: Ended, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a mount was sealed into when it ended."""
    summary = ended.result.summary
    return {
        "mountpoint": ended.mountpoint,
        "time": ended.result.time,
        "sealed": sealed(summary, warnings) if summary else None,
    }


def _result(ended: Result) -> dict[str, Any]:
    plain = asdict(ended) | {"message": spoken(ended.message)}
    return plain | {"summary": sealed(ended.summary) if ended.summary else None}


def status(found: SessionStatus) -> dict[str, Any]:
    """Return how a session is, with whatever is known of it."""
    plain = asdict(found)
    groups = [plain.pop(name) or {} for name in ("settings", "activity")]
    for name in ("at_work", "error"):
        if plain[name] is None:
            del plain[name]
    if found.settings is None:
        del plain["result"], plain["incomplete"]
    elif found.result is not None:
        plain["result"] = _result(found.result)
    return {**plain, **groups[0], **groups[1], "state": found.state.value}
