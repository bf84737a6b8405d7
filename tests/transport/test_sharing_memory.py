"""What a pool remembers of hosts that share connections, and for how long."""

from __future__ import annotations

import pytest

from grotte._proto.http import Headers, Origin
from grotte._proto.sharing import Sharing

MEMORY = 600.0
HTML = Headers([(b"content-type", b"text/html")])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sharing(clock: Clock) -> Sharing:
    return Sharing(MEMORY, clock)


def host(name: object) -> Origin:
    return Origin("https", f"{name}.grotte.test", 443)


DOMAIN = ("https", "*.grotte.test", 443)


@pytest.mark.parametrize("name", ["localhost", "example", "10.0.0.1", "::1", ".example.com", ""])
def test_hosts_that_have_nobody_to_share_with(sharing: Sharing, name: str) -> None:
    origin = Origin("https", name, 443)
    for mode in ("off", "domain", "strict"):
        assert sharing.place(origin, mode) == ("https", name, 443)


def test_a_421_separates_one_host_for_a_while(sharing: Sharing, clock: Clock) -> None:
    assert sharing.separate(host("a"), "domain")
    assert not sharing.separate(host("a"), "domain")
    assert sharing.place(host("a"), "domain") == ("https", "a.grotte.test", 443)
    assert sharing.place(host("b"), "domain") == DOMAIN
    clock.now = MEMORY
    assert sharing.place(host("a"), "domain") == DOMAIN


@pytest.mark.parametrize(("status", "separates"), [(200, True), (302, True), (404, False), (502, False)])
def test_a_second_opinion_decides(sharing: Sharing, clock: Clock, status: int, separates: bool) -> None:
    doubt = sharing.doubt(DOMAIN, host("a"), "domain", HTML)
    assert doubt is not None
    with doubt:
        assert sharing.place(host("a"), "domain") != DOMAIN
        doubt.answered(status, HTML)
    for name in ("a", "b"):
        assert (sharing.place(host(name), "domain") != DOMAIN) is separates
    # a 404 that is confirmed is believed from now on, and nothing was learnt from what is neither
    assert (sharing.doubt(DOMAIN, host("b"), "domain", HTML) is None) is (status != 502)
    clock.now = MEMORY
    assert sharing.place(host("a"), "domain") == DOMAIN


def test_a_doubt_without_an_answer_leaves_nothing(sharing: Sharing) -> None:
    doubt = sharing.doubt(DOMAIN, host("a"), "domain", HTML)
    assert doubt is not None
    with pytest.raises(KeyError), doubt:
        raise KeyError
    assert sharing.place(host("a"), "domain") == DOMAIN
    assert not sharing.is_proven(DOMAIN)


@pytest.mark.parametrize("kind", [b"application/json", b" Application/connect+json; x=y", b"application/grpc"])
def test_applications_are_believed(sharing: Sharing, kind: bytes) -> None:
    assert sharing.doubt(DOMAIN, host("a"), "domain", Headers([(b"content-type", kind)])) is None


def test_memory_is_bounded_by_time(sharing: Sharing, clock: Clock) -> None:
    for number in range(2000):
        clock.now = float(number)
        sharing.separate(host(number), "domain")
        assert sharing.to_look_up(host(f"x{number}"))
        sharing.adopt(host(f"x{number}"), DOMAIN)
        sharing.forget()
    sizes = [len(memory) for memory in (sharing._separate, sharing._judged, sharing._adopted)]
    assert max(sizes) < 1400
