"""``grotte serve``: the engine in the foreground."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from grotte import _local
from grotte.errors import EngineUnavailableException

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "serve",
        help="run the engine in the foreground",
        description="Run the engine in the foreground, until Ctrl-C or SIGTERM: then what runs ends, and what is paused"
        " is kept. It prints where it listens and its key as two lines for a shell.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=port_number, default=3000, help="0 picks a free one (default: %(default)s)")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=None,
        metavar="DIR",
        help="where sandboxes are kept (default: $GROTTE_DATA_DIR, or ~/.local/state/grotte)",
    )
    parser.add_argument(
        "--api-key",
        type=api_key,
        action="append",
        default=[],
        metavar="KEY",
        help="what clients must send; may repeat, and each key has sandboxes of its own; without one, one is made and"
        " printed",
    )
    parser.add_argument(
        "--spares",
        type=spare_count,
        default=2,
        metavar="N",
        help="how many sandboxes stand ready for the next creations (default: %(default)s)",
    )
    parser.add_argument(
        "--image-map",
        action="append",
        default=[],
        metavar="NAME=IMAGE|PATH",
        help="what templates get for an image of this name: another image, or a root file system on this machine",
    )
    _add_disk_options(parser)
    # How the SDK starts an engine of this user's own.
    parser.add_argument("--on-demand", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ready-fd", type=int, default=None, help=argparse.SUPPRESS)
    parser.set_defaults(execute=execute)


def _add_disk_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--disk-mib",
        type=disk_size,
        default=10240,
        metavar="N",
        help="how much each sandbox may write, in MiB; 0 for as much as there is (default: %(default)s)",
    )
    parser.add_argument(
        "--own-disks",
        action="store_true",
        help="have the kernel enforce that by a file system for each sandbox; needs root, and takes time at each start",
    )
    parser.add_argument(
        "--disk-reserve-mib",
        type=reserve_size,
        default=None,
        metavar="N",
        help="what stays free on the disk of the data directory, in MiB (default: a twentieth, at most 256)",
    )


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def port_number(text: str) -> int:
    number = whole(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not a port: 0 to 65535")
    return number


def spare_count(text: str) -> int:
    number = whole(text)
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{number} is not a number of spares: 0 to 100")
    return number


def api_key(text: str) -> str:
    if not text.isascii() or not text.isprintable() or not text.strip() or text != text.strip():
        raise argparse.ArgumentTypeError("a key is printable ASCII, without spaces around it")
    return text


def disk_size(text: str) -> int:
    number = whole(text)
    if number and not 16 <= number <= 1 << 24:
        raise argparse.ArgumentTypeError(f"{number} is not the size of a disk: 16 to {1 << 24} MiB, or 0")
    return number


def reserve_size(text: str) -> int:
    number = whole(text)
    if not 0 <= number <= 1 << 24:
        raise argparse.ArgumentTypeError(f"{number} is not what can be kept free: 0 to {1 << 24} MiB")
    return number


def execute(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; status 0 after a clean stop."""
    try:
        from grotte.engine.images.sources import read_image_map
        from grotte.engine.serve import ServeOptions, serve
    except ModuleNotFoundError as error:
        raise EngineUnavailableException(
            f"the engine's packages are not installed ({error.name} is missing): pip install 'grotte[engine]'"
        ) from None
    try:
        images = read_image_map(options.image_map)
    except ValueError as error:
        raise EngineUnavailableException(f"--image-map: {error}") from None
    return serve(
        ServeOptions(
            host=options.host,
            port=options.port,
            data_dir=options.data_dir or _local.data_dir(),
            api_keys=tuple(options.api_key),
            spares=options.spares,
            images=images,
            disk_bytes=options.disk_mib << 20,
            own_disks=options.own_disks,
            disk_reserve=None if options.disk_reserve_mib is None else options.disk_reserve_mib << 20,
            on_demand=options.on_demand,
            ready_fd=options.ready_fd,
        )
    )
