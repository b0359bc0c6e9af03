"""`vlaunch plugin`: vlaunch's recovery strategy in SkyPilot's server."""

import click

from launcher.cli import Group
from launcher.cli.answer import json_option, say


@click.group(cls=Group)
def plugin() -> None:
    """vlaunch's recovery strategy in SkyPilot's server. Run these on the machine of the API server, as its user."""


@plugin.command()
@json_option
def install(*, as_json: bool) -> None:
    """Name the plugin in the server's plugins.yaml; again does nothing more."""
    from launcher import plugin_file

    done = plugin_file.install()
    say(done, as_json=as_json, file=plugin_file.path(), installed=True, said=done)


@plugin.command()
@json_option
def uninstall(*, as_json: bool) -> None:
    """Take the plugin out of the server's plugins.yaml; again does nothing more."""
    from launcher import plugin_file

    done = plugin_file.uninstall()
    say(done, as_json=as_json, file=plugin_file.path(), installed=False, said=done)
