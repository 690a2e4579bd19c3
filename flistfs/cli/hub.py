"""flistfs hub: a hub of one's own."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from flistfs.api import hubs
from flistfs.api.format_names import FORMATS, FormatName
from flistfs.api.hubs import ScopeName
from flistfs.cli import documents
from flistfs.cli.answers import answer, print_now
from flistfs.cli.hub_client import COMMANDS
from flistfs.cli.hub_members import command as member_command
from flistfs.cli.options import Size, StorePlace, any_path, json_option
from flistfs.cli.output import plural, progress_shown
from flistfs.cli.secrets import password
from flistfs.errors import FaultsError, UsageError
from flistfs.util.logs import log_to_standard_error

_data_option = click.option(
    "--data", type=any_path, metavar="DIR", help="The hub's directory. Default: one of yours."
)


@click.group("hub", short_help="Use a hub, or serve one.")
def command() -> None:
    """Use a hub, or serve one: users upload archives or flists, and everybody mounts what is there.

    \b
    Example:
      flistfs hub list me --hub https://hub.example
      flistfs hub serve --open --blocks 127.0.0.1:9900
    """


for each_command in (*COMMANDS, member_command):
    command.add_command(each_command)


@command.command("serve", short_help="Serve a hub until it is told to end.")
@_data_option
@click.option("--listen", default="127.0.0.1:8080", show_default=True, metavar="HOST:PORT")
@click.option("--blocks", metavar="HOST:PORT", help="Serve its blocks here, as a 0-db does.")
@click.option(
    "--store",
    type=StorePlace(),
    metavar="URL|FILE",
    help="Where its blocks go. Default: its own directory. A password may come from $FLISTFS_STORE_PASSWORD.",
)
@click.option("--public-url", metavar="URL", help="The hub's own address, where a proxy stands before it.")
@click.option(
    "--public-store", metavar="URL", help="Where flists say that their blocks are, such as zdb://hub:9900."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default="sqlite",
    show_default=True,
    help="The format of the flists that it makes.",
)
@click.option("--open", "is_open", is_flag=True, help="Let everybody on this machine do everything.")
@click.option(
    "--proxy",
    "proxies",
    multiple=True,
    metavar="ADDR",
    help="Believe what the proxy at this address, or network, says of who asks.",
)
@click.option("--tls-cert", type=any_path, metavar="FILE", help="A certificate, for https.")
@click.option("--tls-key", type=any_path, metavar="FILE", help="Its key.")
@click.option("--max-upload", type=Size(), metavar="SIZE", help="Refuse more of an upload. Default: 1T.")
@click.option(
    "--max-entries",
    type=click.IntRange(1),
    default=10_000_000,
    show_default=True,
    metavar="N",
    help="Refuse archives with more.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Give an upload up when the store takes nothing for so long.",
)
@click.option(
    "--block-rate",
    type=click.IntRange(1),
    default=20_000,
    show_default=True,
    metavar="N",
    help="Blocks a second that one address may ask for.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 100),
    default=2,
    show_default=True,
    metavar="N",
    help="Pack N uploads at a time; others wait.",
)
@json_option
def serve(
    data: Path | None,
    listen: str,
    blocks: str | None,
    store: str | None,
    public_url: str | None,
    public_store: str | None,
    format_: FormatName,
    is_open: bool,
    proxies: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    max_upload: int | None,
    max_entries: int,
    timeout: float,
    block_rate: int,
    jobs: int,
    as_json: bool,
) -> None:
    """Serve a hub on this machine, until Ctrl-C or SIGTERM.

    \b
    Example:
      flistfs hub user add me && flistfs hub token new me
      flistfs hub serve --listen 0.0.0.0:8080 --blocks 0.0.0.0:9900 --public-store zdb://hub.example:9900
      curl -H "Authorization: bearer $TOKEN" -F file=@rootfs.tar.gz http://hub.example:8080/api/flist/me/upload
    """

    def announce(addresses: hubs.Addresses) -> None:
        if as_json:
            print_now({"url": addresses.http, "blocks": addresses.blocks})
        else:
            also = f", and blocks at zdb://{addresses.blocks}" if addresses.blocks else ""
            click.echo(f"the hub serves {addresses.http}{also}; Ctrl-C ends it")
        sys.stdout.flush()

    log_to_standard_error(foreground=False)
    hubs.serve_hub(
        data,
        listen=listen,
        blocks=blocks,
        store=store,
        password=password(),
        public_url=public_url,
        public_store=public_store,
        format=format_,
        is_open=is_open,
        certificate=tls_cert,
        key=tls_key,
        max_upload=max_upload or 1 << 40,
        max_entries=max_entries,
        max_jobs=jobs,
        timeout=timeout,
        max_rate=block_rate,
        proxies=proxies,
        announce=announce,
    )


@command.command("check", short_help="Check a hub that is not served.")
@_data_option
@click.option("--store", type=StorePlace(), metavar="URL|FILE", help="Where its blocks are.")
@click.option("--no-store", is_flag=True, help="Ask no store for blocks.")
@click.option("--repair", is_flag=True, help="Make the index of checksums anew.")
@json_option
def check(data: Path | None, store: str | None, no_store: bool, repair: bool, as_json: bool) -> None:
    """Check that every flist of a hub can be read, is what it was, and has all its blocks.

    Each fault is printed with its path; if there is any, the exit code is 10.

    \b
    Example:
      flistfs hub check
    """
    with progress_shown() as progress:
        found = hubs.check_hub(
            data, store=store, password=password(), blocks=not no_store, repair=repair, progress=progress
        )
    if as_json:
        answer(documents.hub_checked(found))
    else:
        for path, why in found.faults:
            click.echo(f"{path}: {why}")
        if not found.faults:
            looked_at = (
                plural(found.repositories, "repository", "repositories"),
                plural(found.flists, "flist"),
            )
            click.echo(f"no faults in {' with '.join(looked_at)} and {plural(found.links, 'link')}")
    if found.faults:
        raise FaultsError(f"the hub has {plural(len(found.faults), 'fault')}")


# Users


@command.group("user", short_help="Who may upload.")
def user() -> None:
    """Say who has a repository on the hub.

    \b
    Example:
      flistfs hub user add me
    """


@user.command("add", short_help="Add a user.")
@click.argument("name")
@_data_option
@json_option
def add_user(name: str, data: Path | None, as_json: bool) -> None:
    """Add a user, whose repository has the same name.

    \b
    Example:
      flistfs hub user add me
    """
    with hubs.accounts(data) as accounts:
        accounts.add_user(name)
    if as_json:
        answer({"user": name})


@user.command("remove", short_help="Remove a user.")
@click.argument("name")
@_data_option
@json_option
def remove_user(name: str, data: Path | None, as_json: bool) -> None:
    """Remove a user and all its tokens. Flists stay.

    \b
    Example:
      flistfs hub user remove me
    """
    with hubs.accounts(data) as accounts:
        accounts.remove_user(name)
    if as_json:
        answer({"user": name})


@user.command("passwd", short_help="Give a user a password.")
@click.argument("name")
@_data_option
@json_option
def change_password(name: str, data: Path | None, as_json: bool) -> None:
    """Give a user a password, which is asked for, or read from standard input.

    \b
    Example:
      flistfs hub user passwd me
    """
    if sys.stdin.isatty():
        text = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        text = sys.stdin.readline().rstrip("\r\n")  # as `hub login` reads it
    if not text:
        raise UsageError("the password is empty")
    with hubs.accounts(data) as accounts:
        accounts.set_password(name, text)
    if as_json:
        answer({"user": name})


@user.command("allow", short_help="Let a user act for a repository.")
@click.argument("name")
@click.argument("repository")
@click.option("--owner", is_flag=True, help="Let it say who else does, too (flistfs hub member).")
@click.option("--remove", is_flag=True, help="No longer.")
@_data_option
@json_option
def allow(name: str, repository: str, owner: bool, remove: bool, data: Path | None, as_json: bool) -> None:
    """Let a user act for a repository besides its own: clients choose it with the cookie `active-user`.

    \b
    Example:
      flistfs hub user allow me official
    """
    with hubs.accounts(data) as accounts:
        if remove:
            accounts.remove_member(repository, name)
        else:
            hubs.add_member(accounts, repository, name, is_owner=owner)
    if as_json:
        answer({"user": name})


@user.command("list", short_help="Show all users.")
@_data_option
@json_option
def list_users(data: Path | None, as_json: bool) -> None:
    """Show all users, and what they act for.

    \b
    Example:
      flistfs hub user list
    """
    with hubs.accounts(data) as accounts:
        found = accounts.users()
    if as_json:
        answer({"users": [documents.hub_user(each) for each in found]})
        return
    for each in found:
        others = (f"{name} (owner)" if name in each.owned else name for name in each.repositories)
        click.echo(" ".join((each.name, *others)))


# Tokens


@command.group("token", short_help="What programs log in with.")
def token() -> None:
    """Make and revoke tokens, with which programs act for a user.

    \b
    Example:
      flistfs hub token new me --label ci --expires 90d
    """


@token.command("new", short_help="Make a token.")
@click.argument("name", metavar="USER")
@click.option("--label", default="", help="What it is for.")
@click.option("--scope", type=click.Choice(hubs.SCOPES), default="write", show_default=True)
@click.option("--expires", metavar="90d|12h", help="When it ends. Default: never.")
@_data_option
@json_option
def new_token(
    name: str, label: str, scope: ScopeName, expires: str | None, data: Path | None, as_json: bool
) -> None:
    """Make a token and print it. It is kept nowhere: a lost one is replaced by another.

    \b
    Example:
      export FLISTFS_HUB_TOKEN=$(flistfs hub token new me --label laptop)
    """
    text = hubs.new_token(name, label=label, scope=scope, expires=expires, data=data)
    if as_json:
        answer({"user": name, "token": text})
    else:
        click.echo(text)


@token.command("list", short_help="Show all tokens, but not their texts.")
@click.argument("name", metavar="[USER]", required=False)
@_data_option
@json_option
def list_tokens(name: str | None, data: Path | None, as_json: bool) -> None:
    """Show tokens by their numbers, and when they were used last.

    \b
    Example:
      flistfs hub token list me
    """
    with hubs.accounts(data) as accounts:
        found = accounts.tokens(name)
    if as_json:
        answer({"tokens": [documents.hub_token(each) for each in found]})
        return
    for each in found:
        used = f"used {_day(each.used)}" if each.used else "never used"
        ends = f"ends {_day(each.expires)}" if each.expires else "never ends"
        click.echo(f"{each.id}  {each.user}  {each.scope.value}  {used}, {ends}  {each.label}".rstrip())
    if not found:
        click.echo(plural(0, "token"), err=True)


@token.command("revoke", short_help="Make a token worthless.")
@click.argument("number", type=int)
@_data_option
@json_option
def revoke_token(number: int, data: Path | None, as_json: bool) -> None:
    """Make a token worthless from now on.

    \b
    Example:
      flistfs hub token revoke 3
    """
    with hubs.accounts(data) as accounts:
        accounts.revoke(number)
    if as_json:
        answer({"token_id": number})


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
