"""flistfs hub member: who acts for a repository of a hub."""

from __future__ import annotations

import click

from flistfs.cli.answers import answer
from flistfs.cli.hub_client import hub_option, opened
from flistfs.cli.options import json_option


@click.group("member", short_help="Who acts for a repository.")
def command() -> None:
    """Say who acts for a repository of a hub: the user of its name does, and whom its owners name.

    \b
    Example:
      flistfs hub member add official bob
    """


@command.command("list", short_help="Show who acts for a repository.")
@click.argument("repository")
@hub_option
@json_option
def list_members(repository: str, url: str | None, as_json: bool) -> None:
    """Show who acts for a repository that you own.

    \b
    Example:
      flistfs hub member list official
    """
    with opened(url) as client:
        found = client.members(repository)
    if as_json:
        answer({"members": [{"user": user, "role": role} for user, role in found.items()]})
        return
    for user, role in found.items():
        click.echo(f"{user}  {role}")


@command.command("add", short_help="Let a user act for a repository.")
@click.argument("repository")
@click.argument("user")
@click.option("--owner", "is_owner", is_flag=True, help="Let it say who else does, too.")
@hub_option
@json_option
def add_member(repository: str, user: str, is_owner: bool, url: str | None, as_json: bool) -> None:
    """Let a user act for a repository that you own: the user chooses it with --as.

    \b
    Example:
      flistfs hub member add official bob --owner
    """
    with opened(url) as client:
        client.add_member(repository, user, is_owner=is_owner)
    if as_json:
        answer({"user": user})


@command.command("remove", short_help="Let a user no longer act for a repository.")
@click.argument("repository")
@click.argument("user")
@hub_option
@json_option
def remove_member(repository: str, user: str, url: str | None, as_json: bool) -> None:
    """Let a user no longer act for a repository that you own.

    \b
    Example:
      flistfs hub member remove official bob
    """
    with opened(url) as client:
        client.remove_member(repository, user)
    if as_json:
        answer({"user": user})
