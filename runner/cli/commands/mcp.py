"""`paddock mcp`: the pipelines of a folder as tools for agents."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass

from paddock.engine.api import api_keys
from paddock.runner.cli.agent_tools import AgentTools
from paddock.runner.cli.arguments import (
    HERE,
    PermissionsOption,
    api_keys_option,
    argument,
    existing_folder,
    given_settings,
    max_runs_option,
    option,
)
from paddock.runner.cli.detached_run import DetachedRuns
from paddock.runner.cli.exit_status import DONE, CommandError
from paddock.runner.settings import read_settings
from paddock.steps.extras import missing_mcp_library

_KEYS_FILE_NAME = "agent-keys"


@dataclass(frozen=True, slots=True)
class McpFlags:
    folder: str = argument(
        "The folder; by default the current one.", default=HERE, metavar="FOLDER"
    )
    port: int | None = option(
        "Serve HTTP at this port of 127.0.0.1, behind API keys; 0: any free one.", min=0, max=65535
    )
    api_keys: str | None = api_keys_option()
    allow: PermissionsOption = None
    max_runs: int | None = max_runs_option()


def mcp(flags: McpFlags) -> int:
    """Serve the pipelines of FOLDER to agents as tools (Model Context Protocol).

    Over standard input and output, for a host that starts it; or over HTTP (--port). Agents plan,
    run and explain pipelines. What a file reaches besides files and models needs `paddock allow`.
    """
    if (missing := missing_mcp_library()) is not None:
        raise CommandError("`paddock mcp` needs the package 'mcp', which is not installed.\n"
                           f"  {missing[1]}")  # fmt: skip
    folder = existing_folder(flags.folder, "mcp").resolve()
    given = given_settings(api_keys=flags.api_keys, allow=flags.allow)
    settings = read_settings(folder, flags=given)
    keys = settings.service.api_keys_file
    if flags.port is None and keys is not None:
        api_keys.read_keys(keys)
    elif flags.port is not None and keys is None:  # each user of this machine could start runs
        file = settings.state_dir / _KEYS_FILE_NAME
        make = f"mkdir -p '{file.parent}' && {api_keys.key_command(file)}"
        raise CommandError(
            f"Anyone on this machine could start runs at port {flags.port}: there are no API keys."
            f"\n  {make} && paddock mcp --port {flags.port} --api-keys '{file}'"
        )
    os.chdir(folder)  # as a person who types the command there: relative inputs, the nearest files
    own = given_settings(allow=flags.allow)
    runs = DetachedRuns(folder, own, flags.max_runs or settings.unattended.max_runs)
    tools = AgentTools(folder, own, keys, runs)
    server = importlib.import_module("paddock.runner.cli.mcp_server")  # a second, with its library
    if flags.port is None:
        server.serve_streams(tools)
    else:
        server.serve_http(tools, settings.service, flags.port)
    return DONE
