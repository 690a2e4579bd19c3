"""flistfs hub: what lies on a hub, and what one does with it there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from flistfs.api.publishing import HubClient, login, login_with_password, logout, open_hub
from flistfs.cli.answers import absolute, answer
from flistfs.cli.nodes import time_of
from flistfs.cli.options import any_path, force_option, json_option
from flistfs.errors import UsageError

hub_option = click.option(
    "--hub",
    "url",
    metavar="URL",
    envvar=["FLISTFS_HUB", "ZFLIST_HUB"],
    help="The hub, such as https://hub.example. Default: $FLISTFS_HUB, else the one of the last login.",
)

acting_option = click.option(
    "--as",
    "acting_for",
    metavar="REPOSITORY",
    envvar=["FLISTFS_HUB_USER", "ZFLIST_HUB_USER"],
    help="The repository to act for, if not your own.",
)


def _on_hub(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that acts for a repository."""
    return hub_option(acting_option(json_option(function)))


def token() -> str | None:
    """Return the token that the environment has: an argument would be in every list of processes."""
    return os.environ.get("FLISTFS_HUB_TOKEN") or os.environ.get("ZFLIST_HUB_TOKEN") or None


def opened(url: str | None, acting_for: str | None = None) -> Any:  # noqa: ANN401  a context manager
    """Open the hub that is named, or the one of the last login."""
    return open_hub(url, token(), acting_for=acting_for)


def _named(text: str, client: HubClient) -> tuple[str, str]:
    """Take `REPOSITORY/NAME` apart; a bare name is in one's own repository."""
    repository, slash, name = text.rpartition("/")
    return (repository, name) if slash else (client.whoami(), text)


def _done(*, as_json: bool, **said: str) -> None:
    if as_json:
        answer(said)


@click.command("login", short_help="Keep a token for a hub.")
@click.argument("url", metavar="URL")
@click.option("--user", metavar="NAME", help="Ask the hub for a token, with this user's password.")
@json_option
def log_in(url: str, user: str | None, as_json: bool) -> None:
    """Keep a token for a hub: from $FLISTFS_HUB_TOKEN, asked for, or read from standard input.

    With --user the password is asked for, or read from standard input, and the hub makes a token for it.

    \b
    Example:
      flistfs hub login https://hub.example
      flistfs hub login https://hub.example --user me
    """
    if user is None:
        name = login(url, token() or _secret("Token"))
    else:
        name = login_with_password(url, user, _secret("Password"))
    if as_json:
        answer({"hub": url.rstrip("/"), "user": name})
    else:
        click.echo(f"{url.rstrip('/')} knows you as {name}")


def _secret(what: str) -> str:
    text = str(click.prompt(what, hide_input=True, err=True)) if sys.stdin.isatty() else _line(what)
    if not text.strip():
        raise UsageError(f"the {what.lower()} is empty")
    return text


def _line(what: str) -> str:
    try:
        text = sys.stdin.readline().rstrip("\r\n")
        text.encode()  # where the locale is C, other bytes are read as surrogates
    except UnicodeError:  # its text would show the secret
        raise UsageError(f"the {what.lower()} is not UTF-8") from None
    return text


@click.command("logout", short_help="Forget the token of a hub.")
@click.argument("url", metavar="[URL]", required=False)
@click.option("--revoke", is_flag=True, help="Make it worthless, too (hubs of flistfs).")
@json_option
def log_out(url: str | None, revoke: bool, as_json: bool) -> None:
    """Forget the token of a hub, by default the last one. It stays good, unless it is revoked.

    \b
    Example:
      flistfs hub logout
    """
    _done(as_json=as_json, hub=logout(url, revoke=revoke))


@click.command("whoami", short_help="Show which repository is yours.")
@_on_hub
def whoami(url: str | None, acting_for: str | None, as_json: bool) -> None:
    """Show which repository a hub knows you as.

    \b
    Example:
      flistfs hub whoami
    """
    with opened(url, acting_for) as client:
        name = client.whoami()
    if as_json:
        answer({"hub": client.url, "user": name})
    else:
        click.echo(name)


@click.command("list", short_help="List repositories, or what is in one.")
@click.argument("repository", metavar="[REPOSITORY[/TAG]]", required=False)
@hub_option
@json_option
def list_entries(repository: str | None, url: str | None, as_json: bool) -> None:
    """List the repositories of a hub, what is in one of them, or in a tag of it.

    \b
    Example:
      flistfs hub list me
    """
    with opened(url) as client:
        if repository is None:
            names = client.repositories()
            if as_json:
                answer({"repositories": names})
            for name in () if as_json else names:
                click.echo(name)
            return
        user, _, tag = repository.partition("/")
        found = client.entries(user, tag or None)
    if as_json:
        answer({"flists": [asdict(each) for each in found]})
        return
    for each in found:
        target = f" -> {each.target}" if each.target else ""
        click.echo(f"{time_of(each.updated)}  {each.size:>12}  {each.name}{target}")


@click.command("info", short_help="Show what a hub tells of an flist.")
@click.argument("name", metavar="[REPOSITORY/]NAME")
@hub_option
@json_option
def show(name: str, url: str | None, as_json: bool) -> None:
    """Show size, MD5 and metadata of an flist on a hub.

    \b
    Example:
      flistfs hub info me/app.flist
    """
    with opened(url) as client:
        where = _named(name, client)
        told, metadata = client.find(*where), client.metadata(*where)
    if as_json:
        answer({"flist": asdict(told), "metadata": dict(metadata)})
        return
    click.echo(f"{told.name}: {told.size:,} bytes, {time_of(told.updated)} UTC, MD5 {told.md5}")
    for key, value in metadata.items():
        click.echo(f"metadata {key}: {value}")


@click.command("download", short_help="Download an flist.")
@click.argument("name", metavar="[REPOSITORY/]NAME")
@click.argument("out", type=any_path, metavar="OUT.flist")
@hub_option
@force_option
@json_option
def download(name: str, out: Path, url: str | None, force: bool, as_json: bool) -> None:
    """Download an flist, whose MD5 is checked.

    \b
    Example:
      flistfs hub download me/app app.flist
    """
    with opened(url) as client:
        told = client.download(*_named(name, client), out, force=force)
    if as_json:
        answer({"out": absolute(out), "md5": told.md5})
    else:
        click.echo(f"{out}: {told.size:,} bytes, MD5 {told.md5}")


@click.command("delete", short_help="Remove an flist or a link.")
@click.argument("name")
@_on_hub
def delete(name: str, url: str | None, acting_for: str | None, as_json: bool) -> None:
    """Remove an flist or a link from your repository. Blocks stay.

    \b
    Example:
      flistfs hub delete old.flist
    """
    with opened(url, acting_for) as client:
        client.delete(name)
    _done(as_json=as_json, name=name)


@click.command("rename", short_help="Rename an flist or a link.")
@click.argument("source", metavar="NAME")
@click.argument("name", metavar="NEW")
@_on_hub
def rename(source: str, name: str, url: str | None, acting_for: str | None, as_json: bool) -> None:
    """Rename an flist or a link of your repository.

    \b
    Example:
      flistfs hub rename app.flist app:v1.flist
    """
    with opened(url, acting_for) as client:
        client.rename(source, name)
    _done(as_json=as_json, name=name)


@click.command("link", short_help="Make a link to an flist.")
@click.argument("source", metavar="[REPOSITORY/]NAME")
@click.argument("name", metavar="LINK")
@_on_hub
def link(source: str, name: str, url: str | None, acting_for: str | None, as_json: bool) -> None:
    """Make a link in your repository to an flist of yours or of another; it follows what that becomes.

    \b
    Example:
      flistfs hub link app:v1.flist app.flist
    """
    repository, slash, wanted = source.rpartition("/")
    with opened(url, acting_for) as client:
        client.link(name, repository if slash else None, wanted)
    _done(as_json=as_json, name=name)


@click.command("promote", short_help="Copy an flist of another repository.")
@click.argument("source", metavar="REPOSITORY/NAME")
@click.argument("name", metavar="COPY")
@_on_hub
def promote(source: str, name: str, url: str | None, acting_for: str | None, as_json: bool) -> None:
    """Copy an flist into your repository; what has that name there is replaced.

    \b
    Example:
      flistfs hub promote builds/app:a1b2c3.flist app.flist --as official
    """
    with opened(url, acting_for) as client:
        client.promote(name, *_named(source, client))
    _done(as_json=as_json, name=name)


@click.command("tag", short_help="Put a link into a tag.")
@click.argument("tag", metavar="TAG")
@click.argument("source", metavar="[REPOSITORY/]NAME")
@click.argument("name", metavar="LINK")
@_on_hub
def put_tag(tag: str, source: str, name: str, url: str | None, acting_for: str | None, as_json: bool) -> None:
    """Put a link to an flist into a tag of your repository, a set of links that belong together.

    \b
    Example:
      flistfs hub tag v1 app:v1.flist app.flist
    """
    with opened(url, acting_for) as client:
        client.tag(tag, name, *_named(source, client))
    _done(as_json=as_json, name=name)


@click.command("untag", short_help="Take a link out of a tag.")
@click.argument("tag", metavar="TAG")
@click.argument("source", metavar="[REPOSITORY/]NAME")
@click.argument("name", metavar="LINK")
@_on_hub
def drop_tag(
    tag: str, source: str, name: str, url: str | None, acting_for: str | None, as_json: bool
) -> None:
    """Take a link out of a tag, which goes with its last one.

    \b
    Example:
      flistfs hub untag v1 app:v1.flist app.flist
    """
    with opened(url, acting_for) as client:
        client.untag(tag, name, *_named(source, client))
    _done(as_json=as_json, name=name)


@click.command("merge", short_help="Make one flist of several.")
@click.argument("name", metavar="NAME")
@click.argument("sources", nargs=-1, required=True, metavar="REPOSITORY/NAME...")
@_on_hub
def merge(
    name: str, sources: tuple[str, ...], url: str | None, acting_for: str | None, as_json: bool
) -> None:
    """Make one flist of several that are on the hub; of what several have, the first one's counts.

    \b
    Example:
      flistfs hub merge all.flist base/system.flist me/app.flist
    """
    with opened(url, acting_for) as client:
        client.merge(name, ["/".join(_named(each, client)) for each in sources])
    _done(as_json=as_json, name=name)


COMMANDS = (
    log_in,
    log_out,
    whoami,
    list_entries,
    show,
    download,
    delete,
    rename,
    link,
    promote,
    put_tag,
    drop_tag,
    merge,
)
"""What is done with any hub."""
