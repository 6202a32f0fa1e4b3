"""Look at what lies between a service and those who ask it: proxies, keys, firewalls.

Reads the environment and what the operating system's own tools tell without asking for rights.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from paddock.runner.settings import Settings

from .findings import Finding

ASK_S = 3.0
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def proxies(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Say which proxies programs use, and warn where they would be asked for this machine."""
    named = {name: _set(environ, name) for name in _PROXIES}
    for name, url in named.items():
        if url:
            yield Finding("proxy", "ok", f"{name} is {_without_secret(url)}")
    if not (named["HTTP_PROXY"] or named["ALL_PROXY"]):
        return
    spared = {part.strip().lower() for part in _set(environ, "NO_PROXY").split(",")}
    missing = [host for host in ("localhost", "127.0.0.1") if host not in spared]
    if missing and "*" not in spared:
        text = (
            f"NO_PROXY lacks {' and '.join(missing)}: clients would ask the proxy for "
            f"{settings.address.url}"
        )
        already = ",".join(sorted(spared - {""}))
        value = ",".join(filter(None, (already, "localhost", "127.0.0.1", "::1")))
        yield Finding("proxy", "warning", text, f"export NO_PROXY='{value}'")


def _set(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.lower()) or "").strip()


def _without_secret(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def service(settings: Settings) -> Iterator[Finding]:
    """Say where the service would listen, and whether whoever reaches it needs a key."""
    service = settings.service
    keys = service.api_keys_file
    if keys is not None:
        yield _keys(keys)
    if service.is_loopback:
        text = f"{service.netloc}, for programs on this machine"
        yield Finding("service", "ok", text)
        return
    if keys is None:
        text = f"{service.netloc} is for other machines too, and asks for no key"
        remedy = "Name a file of keys: PADDOCK_API_KEYS; `paddock serve` says how to make one."
        yield Finding("service", "warning", text, remedy)
    else:
        yield Finding("service", "ok", f"{service.netloc}, for whoever has a key")
    yield from firewall(service.port)


def _keys(file: Path) -> Finding:
    try:
        mode = file.stat().st_mode
    except OSError as error:
        return Finding("API keys", "warning", f"{file}: {error.strerror}", "Make the file.")
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        text = f"{file} can be read by others on this machine"
        return Finding("API keys", "warning", text, f"chmod 600 '{file}'")
    return Finding("API keys", "ok", str(file))


def firewall(port: int) -> Iterator[Finding]:
    """Say what a firewall does with the port, as far as this user may know."""
    rules = _asked("ufw", "status")
    if "Status: active" in rules:
        if re.search(rf"^{port}\b", rules, re.MULTILINE):
            yield Finding("firewall", "ok", f"ufw has a rule for port {port}")
        else:
            text = f"ufw is active and has no rule for port {port}: others cannot reach it"
            yield Finding("firewall", "warning", text, f"sudo ufw allow {port}/tcp")
        return
    closed = _closed_by(_asked("nft", "list", "ruleset"), _asked("iptables", "-S", "INPUT"), port)
    if closed:
        text = f"{closed} drops what no rule allows, and no rule names port {port}"
        yield Finding(
            "firewall", "warning", text, f"sudo iptables -I INPUT -p tcp --dport {port} -j ACCEPT"
        )


def _closed_by(nft: str, iptables: str, port: int) -> str:
    """Name the filter that keeps others out, if one does; pure."""
    rule = re.compile(rf"dports? [^\n]*\b{port}\b")
    if "-P INPUT DROP" in iptables and not rule.search(iptables):
        return "iptables"
    inputs = [part for part in nft.split("chain ")[1:] if "hook input" in part]
    if any("policy drop" in part and not rule.search(part) for part in inputs):
        return "nftables"
    return ""


def _asked(*command: str) -> str:
    """Ask a tool; nothing where it is not there, or not for us."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""
