"""Templates by any Python client of this protocol: ``python building.py MODULE NAME CONTEXT``; prints JSON.

Only names that all clients have are used. What differs from run to run (ids, times) is not in the results.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
import urllib.request
from typing import Any

MODULE, NAME, CONTEXT = sys.argv[1:]
# the clients are strangers to each other: no one's types describe all
sdk: Any = importlib.import_module(MODULE)


def steps(builder: Any) -> Any:
    """What is built: on a directory with a link in it and a file that is to be left out."""
    return (
        builder(file_context_path=CONTEXT)
        .from_base_image()
        .set_envs({"GREETING": "hello you", "MORE": "$GREETING!"})
        .run_cmd(f"echo to-out; echo to-err >&2; id -un > /tmp/who # {NAME}")
        .run_cmd(["cd /opt", "touch made-by-root"], user="root")
        .set_workdir("/app")
        .copy("app", ".")
        .copy("app/run.sh", "/usr/local/bin/run-it", user="root", mode=0o755)
        .make_symlink("/app/main.txt", "/app/latest")
        .set_user("root")
        .run_cmd("date +%s%N > /stamp")
    )


def seen(name: str) -> list[str]:
    """What a sandbox of the template has."""
    sandbox = sdk.Sandbox.create(name, timeout=60)
    try:
        show = "find . ! -type d | sort; readlink link latest; run-it; cat /tmp/who /app/latest; ls /opt; id -un; pwd"
        shown = sandbox.commands.run(f'{show}; echo "$GREETING|$MORE"; stat -c "%a %U" main.txt /usr/local/bin/run-it')
        return [*shown.stdout.splitlines(), sandbox.files.read("/stamp")]
    finally:
        sandbox.kill()


def failed() -> list[object]:
    """What is said of a step that fails."""
    template = sdk.Template().from_base_image().run_cmd("true").run_cmd("echo before; echo why >&2; exit 7")
    try:
        sdk.Template.build(template, f"{NAME}-failed")
    except sdk.BuildException as error:
        lines = str(error).splitlines()
        return [lines[0].partition(": the command")[0], sorted(lines[1:])]
    return ["nothing failed"]


def in_background() -> list[object]:
    """How a build ends that nobody waits for, and what it has said."""
    template = sdk.Template().from_template(f"{NAME}:v2").run_cmd("echo above")
    info = sdk.Template.build_in_background(template, f"{NAME}-above")
    deadline = time.monotonic() + 30
    while (found := sdk.Template.get_build_status(info)).status.value in ("waiting", "building"):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return [found.status.value, "above" in messages_of(found.log_entries), seen(f"{NAME}-above")[0]]


def tags(template_id: str) -> list[object]:
    def names() -> list[str]:
        return sorted(tag.tag for tag in sdk.Template.get_tags(template_id))

    before = names()
    assigned = sdk.Template.assign_tags(f"{NAME}:v1", ["prod", "stable"])
    between = names()
    sdk.Template.remove_tags(NAME, "stable")
    return [before, sorted(assigned.tags), between, names(), sdk.Template.exists(NAME), sdk.Template.exists(f"{NAME}0")]


def delete(template_id: str) -> list[object]:
    """No client has a method for this: it is done as their command line does it."""
    prefix = MODULE.upper()
    key = {"X-API-Key": os.environ[f"{prefix}_API_KEY"]}
    address = f"{os.environ[f'{prefix}_API_URL']}/templates/{template_id}"
    with urllib.request.urlopen(urllib.request.Request(address, headers=key, method="DELETE")) as answer:
        status = answer.status
    return [status, sdk.Template.exists(NAME)]


def messages_of(log: list[Any]) -> list[str]:
    return [entry.message for entry in log]


def main() -> None:
    log: list[Any] = []
    info = sdk.Template.build(steps(sdk.Template), f"{NAME}:v1", cpu_count=1, memory_mb=512, on_build_logs=log.append)
    first = seen(f"{NAME}:v1")
    again: list[Any] = []
    asyncio.run(sdk.AsyncTemplate.build(steps(sdk.AsyncTemplate), NAME, tags=["v2"], on_build_logs=again.append))
    results = {
        "built": [info.name == f"{NAME}:v1", info.tags],
        "seen": first[:-1],
        "logged": [words in messages_of(log) for words in ("to-out", "to-err")],
        "uploaded": sum(message.startswith("Uploaded") for message in messages_of(log)),
        "cached": sum(message.startswith("CACHED") for message in messages_of(again)),
        "run again": "to-out" in messages_of(again),
        "kept": seen(f"{NAME}:v2") == first,
        "in the background": in_background(),
        "failed": failed(),
        "tags": tags(info.template_id),
        "delete": delete(info.template_id),
    }
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
