"""What a sandbox uses, as the machine counts it, and as its own processes add it up."""

from __future__ import annotations

from grotte.engine.host import Guest, SandboxHost
from tests.host.support import shell


async def test_usage_grows(host: SandboxHost, box: Guest) -> None:
    before = await host.usage(box), await box.usage()
    assert (await shell(box, "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")).status.code == 0
    after = await host.usage(box), await box.usage()
    for old, new in zip(before, after, strict=True):
        assert new.cpu_seconds > old.cpu_seconds
        assert new.memory > 0
        assert new.cache >= 0
