"""`dmcodec demo`: try a codec in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import BundleOption


def demo(
    bundle: BundleOption = None,
    port: Annotated[
        int, typer.Option(help="Port on this machine; 0 takes a free one (default: 8765).", metavar="N")
    ] = 8765,
    no_open: Annotated[bool, typer.Option("--no-open", help="Don't open the page in the browser.")] = False,
    ort_web: Annotated[
        Path | None,
        typer.Option(help="Folder of ONNX Runtime Web's files (default: npm fetches them once).", metavar="DIR"),
    ] = None,
) -> None:
    """Serve a page on which you record speech and hear what a codec makes of it.

    The codec runs in the browser. Only this machine can reach the page, and nothing leaves it.
    """
    import webbrowser

    from dmcodec.bundle import Bundle, default_bundle_path
    from dmcodec.demo import DemoServer, Site, find_onnxruntime_web

    opened = Bundle.open(bundle or default_bundle_path())
    site = Site.of(opened, find_onnxruntime_web(ort_web))
    with DemoServer(site, port) as server:
        typer.echo(f"{server.url} serves {opened.path.name}; Ctrl-C ends it")
        if not no_open:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("ended")
