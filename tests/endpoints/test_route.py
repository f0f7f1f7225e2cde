"""Proxies and certificates that the environment names."""

import base64

import pytest

from bfpo.endpoints import Endpoint, EndpointConfig
from bfpo.errors import BfpoError, RunError
from support.asking import ask, config, echo
from support.mock_server import serving

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize(
    "proxy", ["socks5://me:hidden@localhost:1", "gopher://localhost:1", "http://localhost:99999", "http://:80"]
)
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch, proxy):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(BfpoError, match="HTTP_PROXY") as caught:
        list(Endpoint(EndpointConfig(url="http://host.invalid/v1", model="m", attempts=1)).complete([ask("a")]))
    assert "hidden" not in str(caught.value)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize(
    ("variable", "scheme"), [("HTTP_PROXY", "http://"), ("ALL_PROXY", "http://"), ("http_proxy", "")]
)
def test_requests_go_through_the_proxy_with_its_password(monkeypatch, variable, scheme):
    with serving(echo) as server:
        address = server.url.removeprefix("http://").removesuffix("/v1")
        monkeypatch.setenv(variable, f"{scheme}me:hidden@{address}")
        (reply,) = Endpoint(EndpointConfig(url="http://host.invalid/v1", model="m", attempts=1)).complete([ask("a")])
    assert reply.text == "re: a"
    [(path, _)] = server.log
    assert path == "http://host.invalid/v1/chat/completions"
    assert server.headers[0]["proxy-authorization"] == "Basic " + base64.b64encode(b"me:hidden").decode()


@pytest.mark.usefixtures("no_proxies")
def test_an_address_without_proxy_is_asked_directly(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://localhost:1")
    monkeypatch.setenv("NO_PROXY", "example.org,127.0.0.1")
    with serving(echo) as server:
        (reply,) = Endpoint(config(server)).complete([ask("a")])
    assert reply.text == "re: a"
    assert server.log[0][0] == "/v1/chat/completions"


@pytest.mark.usefixtures("no_proxies")
def test_certificates_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/authorities.pem")
    with pytest.raises(BfpoError, match="SSL_CERT_FILE"):
        list(Endpoint(EndpointConfig(url="https://host.invalid/v1", model="m", attempts=1)).complete([ask("a")]))


def test_a_server_without_tls_cannot_be_reached_by_https():
    with serving(echo) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(RunError, match=f"{url} can't be reached \\(.*Error"):
            list(Endpoint(EndpointConfig(url=url, model="m", attempts=1)).complete([ask("a")]))
