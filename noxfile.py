"""What a contributor runs: ``nox -l`` lists it, ``nox -s quickstart`` and ``nox -s tests`` need nothing prepared."""

from __future__ import annotations

import os
import shutil

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
#: What the engine asks of the system: command → Debian package.
SYSTEM_COMMANDS = {"bwrap": "bubblewrap", "newuidmap": "uidmap"}
#: Without these sandboxes run, but reach no internet; old distributions do not have them.
WANTED_COMMANDS = {"pasta": "passt"}
#: What the tests ask of it besides.
TEST_COMMANDS = {"ip": "iproute2", "openssl": "openssl", "pkill": "procps"}
#: What tests of images need: without these they are skipped; other distributions do not have all of them.
IMAGE_COMMANDS = {
    "busybox": "busybox-static",
    "docker-registry": "docker-registry",
    "mmdebstrap": "mmdebstrap",
    "musl-gcc": "musl-tools",
    "skopeo": "skopeo",
    "zstd": "zstd",
}
INSTALLERS = {
    "apt-get": ["apt-get", "install", "--yes", "--no-install-recommends"],
    "dnf": ["dnf", "install", "--assumeyes"],
    "pacman": ["pacman", "--sync", "--noconfirm", "--needed"],
    "zypper": ["zypper", "--non-interactive", "install"],
    "apk": ["apk", "add"],
}
NO_QUESTIONS = {"DEBIAN_FRONTEND": "noninteractive"}
#: Where other distributions name a package differently.
PACKAGE_NAMES = {
    "dnf": {"uidmap": "shadow-utils"},
    "pacman": {"uidmap": "shadow"},
    "zypper": {"uidmap": "shadow"},
    "apk": {"uidmap": "shadow-uidmap"},
}


def prepare_system(session: nox.Session, *, for_tests: bool = False) -> None:
    """Install what the engine needs of the system, or say which one line does it."""
    required = missing(SYSTEM_COMMANDS | (TEST_COMMANDS if for_tests else {}))
    wanted = missing(WANTED_COMMANDS | (IMAGE_COMMANDS if for_tests else {}))
    if not (required or wanted):
        return
    installer = next((name for name in INSTALLERS if shutil.which(name)), "")
    names = [PACKAGE_NAMES.get(installer, {}).get(package, package) for package in required]
    command = INSTALLERS.get(installer, ["install"])
    if os.geteuid() == 0 and installer:
        install_packages(session, installer, names, wanted)
    elif required:
        line = " ".join([*command, *names])
        session.error(f"the engine needs {' and '.join(required)}; run this one line, then this again:\n  sudo {line}")
    else:
        session.warn(
            f"without {' and '.join(wanted)} not everything works, and not all is tested:"
            f" sudo {' '.join(command + wanted)}"
        )


def missing(commands: dict[str, str]) -> list[str]:
    """The packages of the commands that this system does not have."""
    return [package for command, package in commands.items() if shutil.which(command) is None]


def install_packages(session: nox.Session, installer: str, required: list[str], wanted: list[str]) -> None:
    """Install packages as root; what is only wanted may be unknown to this distribution."""
    if installer == "apt-get":
        session.run("apt-get", "update", "--quiet", external=True, silent=True)
    if required:
        session.run(*INSTALLERS[installer], *required, external=True, silent=True, env=NO_QUESTIONS)
    for package in wanted:
        session.run(
            *INSTALLERS[installer], package, external=True, silent=True, env=NO_QUESTIONS, success_codes=range(256)
        )


def install(session: nox.Session, *groups: str) -> None:
    """Install the package with its engine, and dependency groups."""
    session.install("--quiet", "pip>=25.1")
    arguments = [argument for group in groups for argument in ("--group", group)]
    session.install("--quiet", "-e", ".[engine,trio]", *arguments)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Set everything up and run the first example: sync, asyncio and trio, in real sandboxes on this machine."""
    prepare_system(session)
    install(session)
    session.run("python", "examples/quickstart.py", env={"GROTTE_API_URL": "local"})


@nox.session
def tests(session: nox.Session) -> None:
    """Set everything up and run every test, the checks of style, types and generated code among them."""
    prepare_system(session, for_tests=True)
    install(session, "test", "lint", "types")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Run the tests on each supported Python that this machine has."""
    prepare_system(session, for_tests=True)
    install(session, "test", "lint", "types")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting (ruff), and that `_sync` is what `_core` generates."""
    session.install("--quiet", "pip>=25.1")
    session.install("--quiet", "--group", "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", "tools/unasync.py", "--check")


@nox.session(name="format")
def format_code(session: nox.Session) -> None:
    """Format the code and fix what ruff can fix."""
    session.install("--quiet", "pip>=25.1")
    session.install("--quiet", "--group", "lint")
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, strictly."""
    install(session, "types")
    session.run("mypy")


@nox.session
def generate(session: nox.Session) -> None:
    """Write the sync trees anew from the async ones, and the API reference from the docstrings."""
    install(session, "lint")
    session.run("python", "tools/unasync.py")
    session.run("python", "tools/reference.py")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Run a benchmark: ``nox -s benchmarks -- transport --json OUT``."""
    prepare_system(session)
    install(session, "benchmark")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Check that every link and every file that the documentation names exists, and that the API reference is new."""
    install(session)
    session.run("python", "tools/check_docs.py")
    session.run("python", "tools/reference.py", "--check")
