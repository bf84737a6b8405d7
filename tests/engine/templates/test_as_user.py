"""Templates without root: the same layers, owned by an ordinary user's ids."""

from __future__ import annotations

import tarfile
from pathlib import Path

from tests.engine.conftest import KEY
from tests.engine.templates.building import Templates, archive, copy, packed, run, step
from tests.engine.templates.test_images import file
from tests.support.engine import running_engine
from tests.support.images import Registry, layer, tar_of
from tests.support.ordinary_user import ordinary_user

DIGEST = "b" * 64


def above(tar: tarfile.TarFile) -> None:
    file(tar, "etc/.wh.group")
    file(tar, "home/.wh..wh..opq")
    file(tar, "owned", b"x", uid=33, gid=44, mode=0o640)


def test_images_steps_and_servers_work_for_everybody(registry: Registry, musl_root: Path) -> None:
    image = registry.push("user:1", layer(tar_of(musl_root)), layer(packed(above, compress=False)))
    with ordinary_user() as someone:
        data_dir = someone.home / "data"
        with running_engine(data_dir, "--api-key", KEY, become=someone.command()) as engine:
            with Templates(engine.url, KEY) as templates:
                build = templates.request_build("mine")
                templates.upload(build.template, DIGEST, archive(("a", b"a"), ("d", None), ("d/b", b"b")))
                build.start(
                    fromImage=image,
                    steps=[
                        step("WORKDIR", "/app"),
                        copy(".", "/app", "33:44", digest=DIGEST),
                        run("hello > ~/said"),
                        run("rm -r /app/d && touch /root/x", "root"),
                    ],
                    startCmd="echo on > /tmp/on; sleep 1000",
                    readyCmd="test -s /tmp/on",
                )
                assert build.wait()["status"] == "ready", build.messages()
                with templates.box(templateID="mine") as box:
                    shown = box.sh(
                        "cat ~/said /tmp/on; stat -c '%u %g %a' /owned a; ls; test -e /home/none || echo gone"
                    )
                    assert shown.stdout == b"hello from musl\non\n33 44 640\n33 44 644\na\ngone\n"
                assert templates.delete("/templates/mine").status_code == 204
                assert list((data_dir / "host/layers").iterdir()) == []
            assert engine.stop() == 0
