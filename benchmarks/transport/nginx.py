"""The server that everybody is measured against: an nginx of the benchmark's own, on loopback.

It answers small files, takes bodies in full before it answers, serves and swallows 64 MiB, passes /held/SECONDS on to
the slow server, and counts the connections that it accepted.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.transport.job import BODY_SIZE, DOMAIN

SMALL = b'{"id":"' + b"x" * 273 + b'"}'  # 282 bytes: what a small answer of the control plane weighs
#: What an agent says of a folder.
STAT = (
    b'{"entry":{"name":"tmp","type":"FILE_TYPE_DIRECTORY","path":"/tmp","size":"4096","mode":1023,'
    b'"permissions":"dtrwxrwxrwx","owner":"root","group":"root","modifiedTime":"2026-01-01T00:00:00Z"}}'
)
STREAMS_PER_CONNECTION = 100
START_SECONDS = 10.0

# `mirror` reads a request's body to its end before the static handler refuses the POST, which the error page turns
# into the small answer: so bodies are really transferred, without a second server behind this one.
CONFIG = """\
daemon off;
worker_processes 2;
worker_rlimit_nofile 16384;
pid nginx.pid;
error_log error.log warn;
{user}
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  default_type application/json;
  keepalive_requests 1000000000;
  keepalive_timeout 300;
  client_max_body_size 1g;
  sendfile on;
  tcp_nopush on;
  http2_max_concurrent_streams {streams};
  server {{
    listen 127.0.0.1:{port} ssl http2 backlog=4096;
    ssl_certificate certificate.pem;
    ssl_certificate_key key.pem;
    root www;
    location = /post {{ mirror /swallow; mirror_request_body on; error_page 405 =200 /small; }}
    location = /swallow {{ internal; return 204; }}
    location ~ ^(/v2)?/sandboxes/(?<id>[a-z0-9]+)/connect$ {{
      return 200 '{{"sandboxID":"$id","templateID":"base","clientID":"bench","envdVersion":"0.4.0","domain":null}}';
    }}
    location = /filesystem.Filesystem/Stat {{ mirror /swallow; mirror_request_body on; error_page 405 =200 /stat; }}
    location = /files {{ try_files /large =404; }}
    location /held/ {{ proxy_pass http://slow; proxy_buffering off; proxy_read_timeout 300; }}
  }}
  server {{
    listen unix:{status};
    location / {{ stub_status; }}
  }}
  upstream slow {{ server unix:{slow}; }}
}}
"""


class ServerError(Exception):
    """The server cannot be started; the message says why and what to do."""


@dataclass(slots=True, frozen=True)
class Nginx:
    """A running nginx.

    Attributes:
        port: Of its TLS listener on 127.0.0.1.
        ca: The certificate to trust, PEM.
        version: As it names itself.
    """

    port: int
    ca: Path
    version: str
    status: Path

    def accepted(self) -> int:
        """Connections that it accepted so far, without those of this question and of those before it."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.status))
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        # stub_status: "Active connections: 1\nserver accepts handled requests\n 12 12 34\n…"
        return int(answer.split(b"requests")[1].split()[0])


def require(command: str) -> str:
    """The path of a program, or an error that names the line that installs it."""
    path = shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise ServerError(f"{command} is missing; install it with: apt-get install -y nginx-light openssl")
    return path


def make_certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 and every host of the domain."""
    certificate = folder / "certificate.pem"
    names = f"subjectAltName=IP:127.0.0.1,DNS:*.{DOMAIN}"
    command = [
        require("openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "2", "-subj", "/CN=grotte benchmark", "-addext", names]
    command += ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return certificate


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def prepare(folder: Path, port: int, slow: Path) -> Path:
    """Write the configuration and the files to serve; return the certificate."""
    www = folder / "www"
    www.mkdir()
    (www / "small").write_bytes(SMALL)
    (www / "post").touch()  # must exist, so that a POST to it is "not allowed" and not "not found"
    (www / "stat").write_bytes(STAT)
    (www / "filesystem.Filesystem").mkdir()
    (www / "filesystem.Filesystem" / "Stat").touch()
    with (www / "large").open("wb") as large:
        large.truncate(BODY_SIZE)
    user = "user root;" if os.geteuid() == 0 else ""
    fields = {"user": user, "streams": STREAMS_PER_CONNECTION, "port": port, "slow": slow}
    (folder / "nginx.conf").write_text(CONFIG.format(**fields, status=folder / "status"))
    return make_certificate(folder)


def wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when the server accepts connections."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise ServerError(f"nginx did not start: {log.read_text().strip()[-600:] if log.exists() else 'no reason given'}")


@contextmanager
def run_nginx(slow: Path) -> Iterator[Nginx]:
    """Start nginx, stop it at the end.

    Args:
        slow: The unix socket of the slow server.

    Raises:
        ServerError: nginx or openssl is missing, or nginx does not start.
    """
    program = require("nginx")
    version = subprocess.run([program, "-v"], capture_output=True, text=True, check=True, timeout=10).stderr.strip()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # bodies are not to be written to a disk
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="grotte-benchmark-", dir=memory)))
        port = free_port()
        ca = prepare(folder, port, slow)
        command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "TERM", *command]  # so that it does not outlive a killed benchmark
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(stop, process)
        wait_until_up(process, port, folder / "error.log")
        yield Nginx(port, ca, version.removeprefix("nginx version: "), folder / "status")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, politely first."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
