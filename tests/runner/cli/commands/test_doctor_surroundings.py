"""Proxies and keys, as `paddock doctor` sees them."""

from pathlib import Path

from paddock.runner.cli import doctor
from paddock.runner.cli.doctor import Finding
from paddock.runner.settings import Settings, read_settings


def settings(tmp_path: Path, **environ: str) -> Settings:
    return read_settings(environ=environ, home=tmp_path)


def test_a_proxy_that_would_be_asked_for_this_machine_is_a_warning(tmp_path: Path) -> None:
    environ = {"HTTP_PROXY": "http://me:secret@proxy:3128", "no_proxy": "intern"}
    assert list(doctor.proxy_findings(settings(tmp_path), environ)) == [
        Finding("proxy", "ok", "HTTP_PROXY is http://proxy:3128"),
        Finding(
            "proxy",
            "warning",
            "NO_PROXY lacks localhost and 127.0.0.1: clients would send requests for "
            "http://127.0.0.1:11434 to the proxy",
            "export NO_PROXY='intern,localhost,127.0.0.1,::1'",
        ),
    ]


def test_who_may_ask_is_told(tmp_path: Path) -> None:
    (near,) = doctor.service_findings(settings(tmp_path))
    assert near == Finding("service", "ok", "127.0.0.1:11434, for programs on this machine")
    wide = next(iter(doctor.service_findings(settings(tmp_path, OLLAMA_HOST="0.0.0.0"))))
    assert (wide.level, wide.text) == (
        "warning",
        "0.0.0.0:11434 is open to other machines without a key",
    )


def test_keys_that_others_can_read_are_a_warning(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a")
    own_settings = settings(tmp_path, PADDOCK_API_KEYS=str(keys))
    keys.chmod(0o644)
    found = next(iter(doctor.service_findings(own_settings)))
    assert (found.level, found.remedy) == ("warning", f"chmod 600 '{keys}'")
    keys.chmod(0o600)
    assert next(iter(doctor.service_findings(own_settings))).level == "ok"
    keys.unlink()
    assert next(iter(doctor.service_findings(own_settings))).level == "warning"
