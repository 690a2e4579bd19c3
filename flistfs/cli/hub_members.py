"""flistfs hub member: who acts for a repository of a hub."""

from __future__ import annotations

import click

from flistfs.api.publishing import HubClient
from flistfs.cli.answers import answer
from flistfs.cli.hub_client import hub_option, opened
from flistfs.cli.options import json_option
from flistfs.errors import UsageError

_names = click.argument("names", nargs=-1, required=True, metavar="[REPOSITORY] USER")


def _taken(names: tuple[str, ...], client: HubClient) -> tuple[str, str]:
    """Return the repository and the user of a command; click cannot leave out the first of two arguments."""
    if len(names) > 2:
        raise UsageError("say one repository and one user")
    return (client.whoami() if len(names) == 1 else names[0]), names[-1]


@click.group("member", short_help="Who acts for a repository.")
def command() -> None:
    """Say who acts for a repository of a hub: the user of its name does, and whom its owners name.

    \b
    Example:
      flistfs hub member add official bob
    """


@command.command("list", short_help="Show who acts for a repository.")
@click.argument("repository", required=False)
@hub_option
@json_option
def list_members(repository: str | None, url: str | None, as_json: bool) -> None:
    """Show who acts for a repository that you own, by default the one of your name.

    \b
    Example:
      flistfs hub member list official
    """
    with opened(url) as client:
        found = client.members(repository or client.whoami())
    if as_json:
        answer({"members": [{"user": user, "role": role} for user, role in found.items()]})
        return
    for user, role in found.items():
        click.echo(f"{user}  {role}")


@command.command("add", short_help="Let a user act for a repository.")
@_names
@click.option("--owner", "is_owner", is_flag=True, help="Let it say who else does, too.")
@hub_option
@json_option
def add_member(names: tuple[str, ...], is_owner: bool, url: str | None, as_json: bool) -> None:
    """Let a user act for a repository that you own, by default the one of your name; --as chooses it.

    \b
    Example:
      flistfs hub member add official bob --owner
    """
    with opened(url) as client:
        repository, user = _taken(names, client)
        client.add_member(repository, user, is_owner=is_owner)
    if as_json:
        answer({"user": user})


@command.command("remove", short_help="Let a user no longer act for a repository.")
@_names
@hub_option
@json_option
def remove_member(names: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Let a user no longer act for a repository that you own, by default the one of your name.

    \b
    Example:
      flistfs hub member remove official bob
    """
    with opened(url) as client:
        repository, user = _taken(names, client)
        client.remove_member(repository, user)
    if as_json:
        answer({"user": user})
