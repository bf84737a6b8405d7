"""Watches on directories and all that happens below them, in the words of the filesystem service.

All watches share one queue of the kernel, which gives few of them to a machine. A thread takes the events from it;
a list of events waits for the engine, which is told once that there are some and then asks for them, so that nothing
inside can flood it.
"""

from __future__ import annotations

import os
import select
import stat
from _queue import SimpleQueue

from . import inotify
from .accounts import Account, Accounts
from .entries import describe, printable
from .files import refusal, resolve
from .inotify import Inotify, RawEvent
from .lean import LockType, allocate_lock, start_new_thread, suppress
from .wire import Json, RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_WATCHES = 256
MAX_WAITING = 16384  # events of one watch, as many as the kernel itself queues
MAX_WAITING_BYTES = 8 << 20
MAX_ANSWER_BYTES = 1 << 20
MAX_UPLOADS = 64
MAX_BATCHES = 64  # of kernel events for one question
OVERFLOW = "events were lost: too many happened at once"

#: What a directory below may answer that is there no more, or that is one of /proc's own.
UNREACHABLE = (FileNotFoundError, NotADirectoryError, PermissionError)
HEXADECIMAL = set("0123456789abcdef")
#: An upload is a temporary file that takes its target's place; watches see what a plain write would have shown.
UPLOADED = {"part": ("CREATE", "CHMOD", "WRITE"), "over": ("WRITE", "CHMOD", "WRITE")}

# In this order: one event of the kernel may be several here.
KINDS = (
    (inotify.CREATE | inotify.MOVED_TO, "CREATE"),
    (inotify.MOVED_FROM | inotify.MOVE_SELF, "RENAME"),
    (inotify.ATTRIB, "CHMOD"),
    (inotify.MODIFY, "WRITE"),
    (inotify.DELETE | inotify.DELETE_SELF, "REMOVE"),
)


class Watch:
    """One watched directory.

    Attributes:
        places: Relative path of each watched directory, by the kernel's number.
        told: The engine knows that events wait.
        failure: Why no more events will come.
    """

    def __init__(self, number: int, root: str, recursive: bool, with_entries: bool) -> None:
        self.number = number
        self.root = root
        self.recursive = recursive
        self.with_entries = with_entries
        self.places: dict[int, str] = {}
        self.told = True
        self.failure: str | None = None
        self._waiting: SimpleQueue[tuple[Json, int]] = SimpleQueue()
        self._bytes = 0

    @property
    def has_news(self) -> bool:
        """Whether there is something to tell."""
        return not self._waiting.empty() or self.failure is not None

    def add(self, name: str, kind: str, entry: Json | None) -> None:
        """Queue an event."""
        event: Json = {"name": printable(name), "type": f"EVENT_TYPE_{kind}"}
        size = 100 + 6 * len(name)
        if entry is not None:
            event["entry"] = entry
            size += 1000 + 12 * (len(self.root) + len(name)) + sum(map(len, map(str, entry.values())))
        self._waiting.put((event, size))
        self._bytes += size
        if self._waiting.qsize() > MAX_WAITING or self._bytes > MAX_WAITING_BYTES:
            self.failure = OVERFLOW

    def take(self) -> list[Json]:
        """Return the first events, as many as an answer holds."""
        taken, size = [], 0
        while size < MAX_ANSWER_BYTES and not self._waiting.empty():
            event, length = self._waiting.get_nowait()
            taken.append(event)
            size += length
        self._bytes -= size
        return taken


class _Telling:
    """Holds the lock, then rings: whoever takes events from the kernel takes them for all watches."""

    def __init__(self, lock: LockType, watches: dict[int, Watch], ring: Callable[[int], None]) -> None:
        self._lock = lock
        self._watches = watches
        self._ring = ring

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        try:
            news = [watch for watch in self._watches.values() if watch.has_news and not watch.told]
            for watch in news:
                watch.told = True
        finally:
            self._lock.release()
        for watch in news:
            self._ring(watch.number)


class Watches:
    """All watches; any thread may call."""

    def __init__(self, accounts: Accounts, ring: Callable[[int], None]) -> None:
        self._accounts = accounts
        self._lock = allocate_lock()
        self._inotify: Inotify | None = None
        self._watches: dict[int, Watch] = {}
        self._telling = _Telling(self._lock, self._watches, ring)
        self._next = 0
        #: Renames of directories whose second half has not been seen: relative paths by cookie and watch.
        self._moving: dict[tuple[int, int], str] = {}
        #: The last uploads that took their place, by cookie.
        self._uploads: dict[int, str] = {}
        #: What was found in a new directory and may yet be announced by the kernel, too.
        self._found: set[tuple[int, str]] = set()

    def create(self, path: str, account: Account, recursive: bool, with_entries: bool, network: bool) -> int:
        """Watch a directory; return the number of the watch.

        Raises:
            RefusedError: It cannot be watched.
        """
        path = resolve(path, account)
        try:
            if not stat.S_ISDIR(os.stat(path).st_mode):
                raise RefusedError("invalid_argument", f"path is not a directory: {path}")
            if not network and inotify.is_on_network(path):
                raise RefusedError("invalid_argument", f"path is on a network file system: {path}")
            with self._telling:
                return self._create(path, recursive, with_entries)
        except OSError as error:
            raise refusal(error, path) from error

    def _create(self, path: str, recursive: bool, with_entries: bool) -> int:
        if len(self._watches) >= MAX_WATCHES:
            raise RefusedError("resource_exhausted", f"a sandbox has at most {MAX_WATCHES} watches")
        queue = self._queue()
        self._process()  # what is in the queue happened before
        self._next += 1
        watch = Watch(self._next, path, recursive, with_entries)
        self._watches[watch.number] = watch
        try:
            watch.places[queue.watch(path, follow=True)] = ""
            for child in self._children(watch, "", announce=False) if recursive else ():
                self._enter(watch, child, announce=False)
        except BaseException:
            self._drop(watch)
            raise
        return watch.number

    def _queue(self) -> Inotify:
        if self._inotify is None:
            queue = Inotify()
            try:
                start_new_thread(self._listen, (queue.fd,))
            except RuntimeError as error:
                os.close(queue.fd)
                raise RefusedError("resource_exhausted", "the sandbox has no room for another thread") from error
            self._inotify = queue
        return self._inotify

    def take(self, number: int) -> Json:
        """Return events of a watch, up to this moment.

        Raises:
            RefusedError: There is no such watch.
        """
        with self._telling:
            self._process()
            watch = self._watches.get(number)
            if watch is None:
                raise RefusedError("not_found", f"watcher with id {number} not found")
            events = watch.take()
            watch.told = watch.has_news
            return {"events": events, "more": watch.has_news, "failure": None if events else watch.failure}

    def remove(self, number: int) -> None:
        """Forget a watch.

        Raises:
            RefusedError: There is no such watch.
        """
        with self._lock:
            watch = self._watches.get(number)
            if watch is None:
                raise RefusedError("not_found", f"watcher with id {number} not found")
            self._drop(watch)

    def _drop(self, watch: Watch) -> None:
        self._watches.pop(watch.number, None)
        self._moving = {key: old for key, old in self._moving.items() if key[1] != watch.number}
        self._release(watch, list(watch.places))

    def _release(self, watch: Watch, numbers: list[int]) -> None:
        for number in numbers:
            del watch.places[number]
            if self._inotify is not None and not any(number in other.places for other in self._watches.values()):
                self._inotify.forget(number)

    # -- events --------------------------------------------------------------------------------------------------

    def _listen(self, fd: int) -> None:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        while True:
            poller.poll()
            with self._telling:
                try:
                    self._process(batches=1)
                except Exception as error:  # noqa: BLE001 - a watch that sees nothing any more must say so
                    for watch in self._watches.values():
                        watch.failure = watch.failure or f"{type(error).__name__}: {error}"

    def _process(self, batches: int = MAX_BATCHES) -> None:
        """Take what the kernel has; the rest, if there is more than that, comes later."""
        if self._inotify is None:
            return
        for _ in range(batches):
            for event in self._inotify.read():
                self._dispatch(event)
            if self._inotify.is_empty():
                self._settle()
                return

    def _settle(self) -> None:
        """Nothing waits: what has been found has been announced."""
        self._found.clear()

    def _dispatch(self, event: RawEvent) -> None:
        for watch in list(self._watches.values()):
            if watch.failure is not None:
                continue
            if event.mask & inotify.QUEUE_OVERFLOW:
                watch.failure = OVERFLOW
            elif event.watch in watch.places:
                self._report(watch, watch.places[event.watch], event)
            if watch.failure is not None:
                self._release(watch, list(watch.places))

    def _report(self, watch: Watch, place: str, event: RawEvent) -> None:
        if event.mask & inotify.IGNORED:
            del watch.places[event.watch]
        elif not event.name:
            if not place:  # of a directory below, its parent tells the same by name
                self._announce(watch, ".", event.mask)
            elif event.mask & inotify.MOVE_SELF:
                self._leave(watch, place)
        elif _is_upload(event.name):
            if event.mask & inotify.MOVED_FROM:
                self._uploads[event.cookie] = event.name
                while len(self._uploads) > MAX_UPLOADS:
                    del self._uploads[next(iter(self._uploads))]
        else:
            self._report_name(watch, os.path.join(place, event.name), event)

    def _report_name(self, watch: Watch, name: str, event: RawEvent) -> None:
        if event.mask & inotify.CREATE and (watch.number, name) in self._found:
            return
        if event.mask & (inotify.DELETE | inotify.MOVED_FROM):
            self._found.discard((watch.number, name))
        upload = self._uploads.get(event.cookie) if event.mask & inotify.MOVED_TO else None
        if upload is not None:
            for kind in UPLOADED[upload.rpartition(".")[2]]:
                self._add(watch, name, kind)
            return
        self._announce(watch, name, event.mask)
        if watch.recursive and event.mask & inotify.IS_DIRECTORY:
            self._follow(watch, name, event)

    def _announce(self, watch: Watch, name: str, mask: int) -> None:
        for bits, kind in KINDS:
            if mask & bits:
                self._add(watch, name, kind)

    def _add(self, watch: Watch, name: str, kind: str) -> None:
        entry = None
        if watch.with_entries and kind in ("CREATE", "CHMOD", "WRITE"):
            with suppress(OSError):  # gone already
                entry = describe(os.path.normpath(os.path.join(watch.root, name)), self._accounts)
        watch.add(name, kind, entry)

    # -- directories below -----------------------------------------------------------------------------------------

    def _follow(self, watch: Watch, name: str, event: RawEvent) -> None:
        """Keep up with a directory that came, went or moved."""
        if event.mask & inotify.MOVED_FROM:
            if _below(watch, name):
                self._moving[event.cookie, watch.number] = name
        elif event.mask & inotify.MOVED_TO and (old := self._moving.pop((event.cookie, watch.number), None)):
            for number in _below(watch, old):
                watch.places[number] = name + watch.places[number][len(old) :]
        elif event.mask & (inotify.CREATE | inotify.MOVED_TO):
            try:
                self._enter(watch, name, announce=bool(event.mask & inotify.CREATE))
            except OSError as error:
                watch.failure = f"{printable(name)} cannot be watched: {error.strerror}"

    def _leave(self, watch: Watch, place: str) -> None:
        """A directory has been moved, which comes after both halves: if one is missing, it has left the tree."""
        for key, old in list(self._moving.items()):
            if key[1] == watch.number and old == place:
                del self._moving[key]
                self._release(watch, _below(watch, old))

    def _enter(self, watch: Watch, place: str, *, announce: bool) -> None:
        """Watch a directory and those below it; what is gone meanwhile, or closed even to root, is no error."""
        assert self._inotify is not None
        pending = [place]
        while pending:
            place = pending.pop()
            try:
                number = self._inotify.watch(os.path.join(watch.root, place), follow=False)
            except UNREACHABLE:
                continue
            watch.places[number] = place
            pending += reversed(self._children(watch, place, announce=announce))

    def _children(self, watch: Watch, place: str, *, announce: bool) -> list[str]:
        """Return the directories in a directory; announce all that is in it."""
        try:
            with os.scandir(os.path.join(watch.root, place)) as entries:
                found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        except UNREACHABLE:
            return []
        for child, _ in found:
            if announce and not _is_upload(child):  # made before the directory was watched
                name = os.path.join(place, child)
                self._found.add((watch.number, name))
                self._add(watch, name, "CREATE")
        return [os.path.join(place, child) for child, is_directory in found if is_directory]


def _is_upload(name: str) -> bool:
    """Whether a file has the name of one: ``.grotte.``, 16 hexadecimal digits, and what it will be."""
    first, grotte, number, kind = [*name.split("."), "", "", "", ""][:4]
    known = (first, grotte, name.count(".")) == ("", "grotte", 3) and kind in UPLOADED
    return known and len(number) == 16 and not set(number) - HEXADECIMAL


def _below(watch: Watch, place: str) -> list[int]:
    return [number for number, path in watch.places.items() if path == place or path.startswith(f"{place}/")]
