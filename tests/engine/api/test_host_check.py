"""Whom a request may call the service by, as WIRE 1.0 and Ollama's own list have it."""

import ipaddress
import socket

import pytest

from paddock.engine.api.host_check import is_own_host
from paddock.engine.settings import ServiceSettings
from paddock.engine.system.hosts import Address
from tests.engine.api.small_service import SmallService

OWN = [
    "", "localhost", "localhost:11434", "LOCALHOST", "127.0.0.1", "127.0.0.1:11434", "127.8.9.1",
    "0.0.0.0", "[::1]", "[::1]:11434", "[::]:80", "::1", "10.1.2.3", "172.16.0.9:80", "192.168.1.5",
    "[fd00::7]:11434", "[::ffff:127.0.0.1]:80", "den", "DEN:11434", "a.localhost", "den.local:80",
    "ollama.internal", "host.docker.internal:11434",
]  # fmt: skip
STRANGERS = [
    "evil.example", "evil.example:11434", "localhost.evil.example", "127.0.0.1.evil.example",
    "evillocalhost", "8.8.8.8", "172.32.0.1", "192.169.0.1", "100.64.0.1", "169.254.1.1",
    "[2001:db8::1]:80", "localhost.", "local", "127.1", "0x7f.0.0.1", "2130706433", "den.example",
    "a b", "localhost@evil.example", "1.1.1.1:127.0.0.1", "localhost:80@evil.example",
    "evil.example:80@a.localhost", "[::1]evil.example", "localhost:80:80", "[::1", "localhost:x",
]  # fmt: skip


def nowhere(address: Address) -> bool:
    return False


@pytest.mark.parametrize("host", OWN)
def test_names_and_addresses_of_this_machine_and_its_network_are_let_in(host: str) -> None:
    assert is_own_host(host, "den", nowhere)


@pytest.mark.parametrize("host", STRANGERS)
def test_names_that_a_stranger_can_point_here_are_not(host: str) -> None:
    assert not is_own_host(host, "den", nowhere)


def test_an_address_of_an_interface_is_let_in_wherever_it_lies() -> None:
    public = ipaddress.ip_address("203.0.113.9")
    assert is_own_host("203.0.113.9:11434", "den", lambda address: address == public)
    assert not is_own_host("203.0.113.10", "den", lambda address: address == public)


def test_a_stranger_s_name_is_answered_by_403_on_a_loopback_address() -> None:
    house = SmallService()
    refused = house.ask(headers={"Host": "evil.example"})
    assert refused.status_code == 403
    assert refused.json() == {
        "error": "host 'evil.example' is not a name of this machine; "
        "ask by 'localhost' or by its address"
    }
    assert house.ask(headers={"Host": socket.gethostname()}).status_code == 200
    assert 'paddock_http_refused_total{reason="host"} 1.0' in house.metrics()


def test_options_of_an_own_host_is_answered_by_204() -> None:
    answer = SmallService().ask("/api/tags", "OPTIONS")
    assert (answer.status_code, answer.content) == (204, b"")
    assert SmallService().ask("/", "OPTIONS", headers={"Host": "evil.example"}).status_code == 403


def test_an_address_that_others_reach_takes_any_name() -> None:
    wide = SmallService(ServiceSettings(host="0.0.0.0", is_insecure=True))
    assert wide.ask(headers={"Host": "gpu.example"}).status_code == 200
