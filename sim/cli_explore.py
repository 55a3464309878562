"""The command ``servescope explore``: serves the what-if page on this machine only."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer
from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import Server

from sim.build import check_registered
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.explore import WhatIf

HOST: Final = "127.0.0.1"


def explore_command(
    path: Path | None, overrides: Sequence[str], *, port: int, show: bool
) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: If the configuration is bad, or the port is taken.
    """
    load_config(path, overrides, check=check_registered)
    server = make_server(path, overrides, port)
    url = f"http://{HOST}:{server.port}/"
    typer.echo(f"servescope explore: {url} (Ctrl-C stops it)")
    server.start()
    if show:
        typer.launch(url)
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        server.stop()


def make_server(path: Path | None, overrides: Sequence[str], port: int) -> Server:
    """A server of the page that answers this machine only.

    Args:
        path: Configuration file or None.
        overrides: ``key=value`` texts of ``--set``.
        port: 0 for any that is free.

    Raises:
        ConfigError: If the port is taken.
    """

    def page(document: Document) -> None:
        WhatIf(path, overrides).add_to(document)

    port = port or _free_port()
    try:
        return Server(
            {"/": Application(FunctionHandler(page))},
            address=HOST,
            port=port,
            allow_websocket_origin=[f"{HOST}:{port}"],
        )
    except OSError as error:
        raise ConfigError(f"--port = {port}: {error.strerror}") from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
