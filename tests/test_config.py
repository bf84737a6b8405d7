"""Where do sandboxes run? The first that is set wins."""

from __future__ import annotations

import logging
import pickle

import pytest

from grotte import AuthenticationException, ConnectionConfig, InvalidArgumentException
from grotte import config as module
from grotte.config import ApiParams

ID = "iabc"


def resolve(environ: dict[str, str] | None = None, **options: object) -> ConnectionConfig:
    return ConnectionConfig.resolve(environ or {}, **options)  # type: ignore[arg-type]  # whatever a test passes


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENGINE_MODULES", ("no_such_module_anywhere",))


KEY = {"GROTTE_API_KEY": "grt_env"}


@pytest.mark.parametrize(
    ("environ", "options", "api_url", "key"),
    [
        (KEY, {}, "https://api.grotte.dev", "grt_env"),
        (KEY, {"api_key": "grt_arg"}, "https://api.grotte.dev", "grt_arg"),
        (KEY | {"GROTTE_DOMAIN": "e2b.app"}, {}, "https://api.e2b.app", "grt_env"),
        (KEY | {"GROTTE_DOMAIN": "e2b.app"}, {"domain": "other.org"}, "https://api.other.org", "grt_env"),
        (KEY | {"GROTTE_API_URL": "https://cp.example:8443/x/"}, {}, "https://cp.example:8443/x", "grt_env"),
        (KEY | {"GROTTE_API_URL": "https://env"}, {"api_url": "http://arg:1"}, "http://arg:1", "grt_env"),
        (KEY | {"GROTTE_API_URL": "https://env"}, {"domain": "arg.org"}, "https://api.arg.org", "grt_env"),
        (KEY | {"GROTTE_API_URL": "local"}, {}, "local", "grt_env"),
        (KEY, {"api_url": "local"}, "local", "grt_env"),
        ({"GROTTE_API_URL": "local"}, {}, "local", None),
        ({"GROTTE_API_URL": "local"}, {"domain": "arg.org", "api_key": "k"}, "https://api.arg.org", "k"),
        ({"GROTTE_DEBUG": "true"}, {}, "http://localhost:3000", None),
        ({"GROTTE_DEBUG": "true"}, {"debug": False, "api_key": "k"}, "https://api.grotte.dev", "k"),
        ({"E2B_API_KEY": "e2b_x", "E2B_DOMAIN": "e2b.app", "E2B_API_URL": "http://x"}, {}, "local", None),
        ({}, {}, "local", None),
    ],
)
def test_the_order(environ: dict[str, str], options: dict[str, object], api_url: str, key: str | None) -> None:
    config = resolve(environ, **options)
    assert (config.api_url, config.api_key) == (api_url, key)


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize("environ", [{}, {"GROTTE_DOMAIN": "x.org"}, {"E2B_API_KEY": "e2b_x"}])
def test_without_key_and_engine_both_ways_on_are_named(environ: dict[str, str]) -> None:
    with pytest.raises(AuthenticationException) as caught:
        resolve(environ)
    assert "GROTTE_API_KEY" in str(caught.value)
    assert "grotte[engine]" in str(caught.value)


def test_the_default_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    module._announce.cache_clear()
    with caplog.at_level(logging.INFO, "grotte"):
        resolve()
        resolve()
        resolve(api_url="local")
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize(
    ("options", "domain", "url"),
    [
        ({}, None, "https://49983-iabc.grotte.dev"),
        ({}, "eu.grotte.dev", "https://49983-iabc.eu.grotte.dev"),
        ({"domain": "e2b.app"}, None, "https://sandbox.e2b.app"),
        ({"domain": "e2b.app"}, "e2b.dev", "https://sandbox.e2b.dev"),
        ({"domain": "my-e2b.org"}, None, "https://49983-iabc.my-e2b.org"),
        ({"sandbox_url": "https://gate.example/"}, "e2b.app", "https://gate.example"),
        ({"debug": True}, None, "http://localhost:49983"),
        ({"api_url": "http://127.0.0.1:3000"}, None, "http://127.0.0.1:3000"),
        ({"api_url": "http://engine:3000"}, None, "http://engine:3000"),
        ({"api_url": "http://127.0.0.1:3000"}, "localhost:3000", "http://localhost:3000"),
        ({"api_url": "http://127.0.0.1:3000"}, "sub.localhost:3000", "http://localhost:3000"),
        ({"api_url": "https://engine"}, None, "https://49983-iabc.grotte.dev"),
    ],
)
def test_where_the_agent_is(options: dict[str, object], domain: str | None, url: str) -> None:
    assert resolve(api_key="k", **options).envd_url(ID, domain) == url


@pytest.mark.parametrize(
    ("options", "domain", "url"),
    [
        ({}, None, "https://8000-iabc.grotte.dev"),
        ({"domain": "e2b.app"}, None, "https://8000-iabc.e2b.app"),
        ({}, "localhost:3000", "http://8000-iabc.localhost:3000"),
        ({"api_url": "http://127.0.0.1:3000"}, None, "http://8000-iabc.localhost:3000"),
        ({"debug": True}, None, "http://localhost:8000"),
    ],
)
def test_where_ports_are(options: dict[str, object], domain: str | None, url: str) -> None:
    config = resolve(api_key="k", **options)
    assert f"{config.port_scheme(domain)}://{config.sandbox_host(ID, domain, 8000)}" == url


def test_the_sandbox_url_of_the_environment_belongs_to_its_place() -> None:
    environ = KEY | {"GROTTE_SANDBOX_URL": "https://gate"}
    assert resolve(environ).sandbox_url == "https://gate"
    assert resolve(environ, domain="e2b.app").sandbox_url is None
    assert resolve(environ, api_url="http://127.0.0.1:1").sandbox_url is None
    assert resolve(environ, domain="e2b.app", sandbox_url="https://mine").sandbox_url == "https://mine"


def test_time_limits() -> None:
    config = resolve(api_key="k")
    assert config.request_timeout == 60
    assert resolve(api_key="k", request_timeout=0).request_timeout is None
    assert resolve(api_key="k", request_timeout=2.5).timeout() == 2.5
    assert config.timeout(0) is None
    assert config.timeout(3) == 3
    with pytest.raises(InvalidArgumentException):
        config.timeout(-1)


def test_more_time_than_there_is_is_no_limit() -> None:
    for seconds in (float("inf"), 1e300, 10**400):
        assert resolve(api_key="k", request_timeout=seconds).request_timeout is None


LONG = "x" * 64
WRONG = [
    *({"domain": domain} for domain in (5, "a b", "a..b", ".a", f"{LONG}.org", "a." * 150 + "org", "x" * 100_000)),
    *({"api_url": url} for url in (True, "ftp://a", "http://", "http://a..b", f"https://{LONG}", "http://a:x")),
    *({"proxy": url} for url in (5, b"http://a", [], "", "a\0b", "http://a b", "http://..", f"http://{LONG}", "ö")),
    *({"debug": value} for value in (5, "true")),
    *({"sandbox_url": url} for url in (5, "x")),
    *({"headers": value} for value in (5, {"a": 5}, {"x" * 100_000 + "ö": "b"})),
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_what_cannot_be_is_refused_at_once(options: dict[str, object]) -> None:
    for wrong in (lambda: resolve(api_key="k", **options), lambda: resolve(api_key="k").override(**options)):  # type: ignore[arg-type]  # that is the point
        with pytest.raises(InvalidArgumentException) as caught:
            wrong()
        assert len(str(caught.value)) < 400, "what is absurdly long is not repeated"


def test_what_is_no_text_is_said_before_a_key_is_missed(no_engine: None) -> None:
    for name in ("api_url", "api_key", "domain"):
        with pytest.raises(InvalidArgumentException, match=name):
            resolve(**{name: 5})


def test_it_never_changes() -> None:
    headers = {"A": "b"}
    config = resolve(api_key="k", headers=headers)
    headers["A"] = "c"
    assert config.headers["A"] == "b"
    with pytest.raises(AttributeError):
        config.api_key = "other"  # type: ignore[misc]  # that is the point
    with pytest.raises(TypeError):
        config.headers["A"] = "c"  # type: ignore[index]  # that is the point


def test_the_options_of_one_call() -> None:
    config = resolve(api_key="k", headers={"A": "b"}, domain="x.org")
    assert config.override() is config
    assert config.override(request_timeout=None, headers=None) is config
    changed = config.override(api_key="other", request_timeout=0, headers={"C": "d"})
    assert (changed.api_key, changed.request_timeout, dict(changed.headers)) == ("other", None, {"A": "b", "C": "d"})
    assert changed.api_url == "https://api.x.org"
    assert config.override(domain="y.org").api_url == "https://api.y.org"
    assert config.override(api_url="http://z").domain == "x.org"
    assert config.api_key == "k"


def test_the_key_shows_nowhere() -> None:
    config = resolve(api_key="grt_secret", headers={"X-Token": "hidden"})
    assert "grt_secret" not in f"{config!r}{config}"
    assert "hidden" not in repr(config)
    with pytest.raises(InvalidArgumentException) as caught:
        resolve(api_key="grt_secret\n")
    assert "grt_secret" not in str(caught.value)


def test_every_option_is_known() -> None:
    assert set(ApiParams.__annotations__) >= {"api_key", "domain", "api_url", "debug", "request_timeout", "headers"}
    with pytest.raises(TypeError):
        resolve(unknown=1)


def test_exceptions_survive_pickling() -> None:
    error = InvalidArgumentException("no", status_code=400, sandbox_id="i", request="GET /", server_message="m")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.status_code, copy.server_message) == (str(error), 400, "m")


def test_where_the_files_of_volumes_are() -> None:
    environ = {"GROTTE_API_KEY": "k", "GROTTE_VOLUME_API_URL": "https://volumes.example.org/"}
    found = resolve(environ)
    assert found.volume_api_url == "https://volumes.example.org"
    assert found.override(request_timeout=3).volume_api_url == found.volume_api_url
    assert found.override(api_url="https://api.example.net").volume_api_url is None
    assert resolve(environ, domain="example.net").volume_api_url is None
    with pytest.raises(InvalidArgumentException, match="GROTTE_VOLUME_API_URL"):
        resolve({**environ, "GROTTE_VOLUME_API_URL": "nowhere"})
