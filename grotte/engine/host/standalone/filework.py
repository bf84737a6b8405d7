"""What the guest's workers do: operations on files, watches, and stopping all that runs."""

from __future__ import annotations

from .accounts import Account, Accounts
from .files import Files
from .stopping import Stopper
from .watches import Watches
from .wire import Json, RefusedError, Wire

Answer = tuple[object, list[int]]


class FileWork:
    """The operations that may wait for a disk; any thread may call."""

    def __init__(self, accounts: Accounts, wire: Wire) -> None:
        self._accounts = accounts
        self._files = Files(accounts)
        self._stopper = Stopper()
        self._watches = Watches(accounts, lambda number: wire.send({"event": "watch", "watch": number}))

    def run(self, request: Json) -> Answer:
        """Do what a request asks for; return the answer, and descriptors that go with it.

        Raises:
            RefusedError: It cannot be done.
        """
        account = self._accounts.user(str(request["user"])) if "user" in request else Account("", 0, 0, "/")
        path = str(request.get("path", ""))
        if request["op"] in ("open_read", "open_write"):
            return self._open(request, path, account)
        return self._plain_operation(request, path, account), []

    def _open(self, request: Json, path: str, account: Account) -> Answer:
        if request["op"] == "open_read":
            described, fd = self._files.open_read(path, account)
        else:
            described, fd = self._files.open_write(path, _texts(request["metadata"]), account)
        return described, [fd]

    def _plain_operation(self, request: Json, path: str, account: Account) -> object:
        match request["op"]:
            case "stat":
                return self._files.stat(path, account)
            case "list_dir":
                return self._files.list_dir(path, _int(request["depth"]), _int(request["skip"]), account)
            case "make_dir":
                return self._files.make_dir(path, account)
            case "move":
                return self._files.move(str(request["source"]), str(request["destination"]), account)
            case "remove":
                self._files.remove(path, account)
            case "commit":
                return self._files.commit(_int(request["token"]))
            case "abort":
                self._files.abort(_int(request["token"]))
            case "stop_all":
                self._stopper.stop_all()
            case "go_on":
                self._stopper.go_on()
            case _:
                return self._watch_operation(request, path, account)
        return {}

    def _watch_operation(self, request: Json, path: str, account: Account) -> object:
        match request["op"]:
            case "watch":
                options = (bool(request[name]) for name in ("recursive", "entries", "network"))
                return {"watch": self._watches.create(path, account, *options)}
            case "take_events":
                return self._watches.take(_int(request["watch"]))
            case "unwatch":
                self._watches.remove(_int(request["watch"]))
                return {}
        raise RefusedError("unimplemented", f"unknown operation {request['op']}")


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _texts(value: object) -> dict[str, str]:
    assert isinstance(value, dict)
    return {str(key): str(text) for key, text in value.items()}
