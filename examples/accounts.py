"""Two accounts in one program, and a volume that two sandboxes share.

Each client has its own key, defaults and connections. Here both keys are that of the environment.
Run it with ``python examples/accounts.py``.
"""

from __future__ import annotations

import asyncio
import os
import secrets

from grotte import AsyncGrotte


async def main() -> None:
    key = os.environ.get("GROTTE_API_KEY")
    async with AsyncGrotte(api_key=key) as first, AsyncGrotte(api_key=key, request_timeout=20) as second:
        volume = await first.Volume.create(f"shared-{secrets.token_hex(4)}")
        try:
            mounts = {"/mnt/shared": volume.name}
            async with await first.Sandbox.create("base", volume_mounts=mounts) as writer:
                await writer.commands.run("echo from the first > /mnt/shared/note")
            async with await second.Sandbox.create("base", volume_mounts=mounts) as reader:
                print(await reader.files.read("/mnt/shared/note"), end="")
        finally:
            await first.Volume.destroy(volume.volume_id)
        for name, client in (("first", first), ("second", second)):
            print(
                f"{name}: {client.counters.streams_opened} requests, {client.counters.connections_opened} connections"
            )


if __name__ == "__main__":
    asyncio.run(main())
