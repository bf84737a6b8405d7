"""Who is reached without a proxy, and that proxies keep their passwords to themselves."""

from __future__ import annotations

import copy
import pickle

import pytest

from grotte._proto.http import Origin
from grotte._proto.no_proxy import bypasses, is_here
from grotte._proto.proxy import Proxies, parse_proxy


@pytest.mark.parametrize(
    ("rules", "host", "port"),
    [
        ("*", "a.example", 443),
        ("x.test, *", "::1", 443),
        ("example.com", "example.com", 443),
        ("example.com", "a.b.example.com", 443),
        ("EXAMPLE.com", "a.Example.COM.", 443),
        (".example.com", "a.example.com", 443),
        (".example.com", "example.com", 443),
        ("*.example.com", "a.example.com", 443),
        ("x.test y.test\texample.com", "example.com", 443),
        (" x.test ,, example.com , ", "example.com", 443),
        ("example.com:8443", "a.example.com", 8443),
        ("10.0.0.0/8", "10.1.2.3", 80),
        ("10.1.2.3/8", "10.200.0.1", 80),
        ("10.1.2.3", "10.1.2.3", 80),
        ("10.1.2.3:80", "10.1.2.3", 80),
        ("10.0.0.0/8", "::ffff:10.1.2.3", 80),
        ("fd00::/8", "fd00::1", 80),
        ("[fd00::1]", "fd00:0:0::1", 80),
        ("[fd00::1]:80", "fd00::1", 80),
        ("fd00::1", "[fd00::1]", 80),
    ],
)
def test_who_is_reached_without(rules: str, host: str, port: int) -> None:
    assert bypasses(rules, host, port)


@pytest.mark.parametrize(
    ("rules", "host", "port"),
    [
        ("", "example.com", 443),
        (",", "example.com", 443),
        (".", "example.com", 443),
        ("example.com", "notexample.com", 443),
        ("a.example.com", "example.com", 443),
        ("example.com:8443", "example.com", 443),
        ("example.com:port", "example.com", 443),
        ("example", "example.com", 443),
        ("1.2.3", "10.1.2.3", 80),
        ("2.3", "10.1.2.3", 80),
        ("10.0.0.0/33", "10.1.2.3", 80),
        ("10.0.0.0/8", "10.example.com", 80),
        ("fd00::/8", "fe00::1", 80),
        ("[fd00::1]:80", "fd00::1", 443),
        ("fd00::1:80", "fd00::1", 80),
    ],
)
def test_who_is_not(rules: str, host: str, port: int) -> None:
    assert not bypasses(rules, host, port)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]"])
def test_this_machine(host: str) -> None:
    assert is_here(host)


@pytest.mark.parametrize("host", ["127.example.com", "localhost.example.com", "notlocalhost", "128.0.0.1", "::2"])
def test_other_machines(host: str) -> None:
    assert not is_here(host)


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower case goes before upper case, an empty value means none, and HTTP_PROXY is no proxy in a CGI script."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    plain, secure = Origin("http", "a.test", 80), Origin("https", "a.test", 443)
    assert Proxies(None).of(secure, None) is None
    monkeypatch.setenv("HTTPS_PROXY", "upper:1")
    monkeypatch.setenv("HTTP_PROXY", "plain:1")
    assert str(Proxies(None).of(secure, None)) == "http://upper:1"
    assert str(Proxies(None).of(plain, None)) == "http://plain:1"
    monkeypatch.setenv("https_proxy", "lower:1")
    assert str(Proxies(None).of(secure, None)) == "http://lower:1"
    monkeypatch.setenv("https_proxy", "")
    assert Proxies(None).of(secure, None) is None
    monkeypatch.setenv("all_proxy", "socks5://all")
    assert str(Proxies(None).of(secure, None)) == "socks5://all:1080"
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert str(Proxies(None).of(plain, None)) == "socks5://all:1080"
    monkeypatch.setenv("no_proxy", "a.test:443")
    assert Proxies(None).of(secure, None) is None
    assert Proxies(None).of(plain, None) is not None
    assert str(Proxies("http://given").of(secure, None)) == "http://given:80"
    assert str(Proxies("http://given").of(secure, "https://wished")) == "https://wished:443"
    assert str(parse_proxy("[::1]:3128")) == "http://[::1]:3128"
    assert Proxies("http://given").of(Origin("unix", "/x", 0), "https://wished") is None


def test_a_password_shows_nowhere() -> None:
    proxy = parse_proxy("https://me:s%3Acret@proxy.test:3128")
    assert (proxy.username, proxy.password) == ("me", "s:cret")
    for shown in (str(proxy), repr(proxy), repr(copy.copy(proxy)), f"{proxy!r:>10}", repr(Proxies(proxy.url))):
        assert "cret" not in shown
    assert pickle.loads(pickle.dumps(proxy)) == proxy
