"""Write the command-line reference from its own definitions, and the page *Try it*, while the site is built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARKER = "<!-- the verbs, generated -->"
DEMO_MARKER = "<!-- the demo -->"
_DEMO = '<iframe src="demo/index.html" title="Try dmcodec" allow="microphone" class="demo"></iframe>'
_NO_DEMO = "This build of the site has no demo: `npm ci` in `runtime/web` was not run before it."


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001 - mkdocs' signature
    """Replace the markers by one section per verb, and by the page of the demo."""
    if DEMO_MARKER in markdown:
        markdown = markdown.replace(DEMO_MARKER, _DEMO if _onnxruntime_web() else _NO_DEMO)
    return markdown.replace(MARKER, "\n".join(reference())) if MARKER in markdown else markdown


def on_post_build(config: Any) -> None:
    """Write the demo with the built-in codec into the site's folder `demo`."""
    if onnxruntime_web := _onnxruntime_web():
        from dmcodec.bundle import Bundle, default_bundle_path
        from dmcodec.demo import Site

        Site.of(Bundle.open(default_bundle_path()), onnxruntime_web).write(Path(config["site_dir"]) / "demo")


def _onnxruntime_web() -> Path | None:
    from dmcodec.demo import installed_onnxruntime_web

    return installed_onnxruntime_web()


def reference() -> Iterator[str]:
    """Give the lines of all sections."""
    for name, command in verbs():
        yield from _section(name, command)


def verbs() -> Iterator[tuple[str, Any]]:
    """Give each verb's full name, such as `train fit`, and its click command."""
    import typer

    from dmcodec.cli.app import build_app

    yield from _commands("", typer.main.get_command(build_app()))


def _commands(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(f"{prefix}{name} ", command)
        else:
            yield f"{prefix}{name}", command


def _section(name: str, command: Any) -> Iterator[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    usage = " ".join(["dmcodec", name, *map(_argument, arguments), "[OPTIONS]"])
    yield from (f"## dmcodec {name}", "", "```text", usage, "```", "", _paragraphs(command.help), "")
    panels: dict[str, list[Any]] = {}
    for parameter in (*arguments, *options):
        if not getattr(parameter, "hidden", False):
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or "", []).append(parameter)
    for panel, parameters in panels.items():
        yield from ([f"**{panel}**", ""] if panel else [])
        yield from ("| option | meaning |", "|---|---|")
        yield from map(_row, parameters)
        yield ""


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    plain = name.strip("[]")
    many = "..." if parameter.nargs == -1 and "..." not in plain else ""
    return f"{plain}{many}" if parameter.required else f"[{plain}{many}]"


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = _argument(parameter)
    else:
        names = ", ".join((*parameter.opts, *parameter.secondary_opts))
        if parameter.metavar and not parameter.is_flag:
            names = f"{names} {parameter.metavar}"
    meaning = " ".join((parameter.help or "").split()) + (" Required." if parameter.required else "")
    return f"| {_cell(f'`{names}`')} | {_cell(meaning)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
