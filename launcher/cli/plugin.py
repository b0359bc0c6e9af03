"""`vlaunch plugin`: vlaunch's recovery strategy in SkyPilot's server."""

import click

from launcher.cli import Group


@click.group(cls=Group)
def plugin() -> None:
    """vlaunch's recovery strategy in SkyPilot's server. Run these on the machine of the API server, as its user."""


@plugin.command()
def install() -> None:
    """Name the plugin in the server's plugins.yaml; again does nothing more."""
    from launcher import plugin_file

    click.echo(plugin_file.install())


@plugin.command()
def uninstall() -> None:
    """Take the plugin out of the server's plugins.yaml; again does nothing more."""
    from launcher import plugin_file

    click.echo(plugin_file.uninstall())
