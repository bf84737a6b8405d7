"""Templates by name, id, tag and owner."""

from __future__ import annotations

import uuid

import pytest

from tests.engine.templates.building import Templates, run
from tests.engine.wire import OTHER_KEY, check_error
from tests.support.engine import Engine

ALIAS = "/templates/aliases"


@pytest.fixture
def other(builder: Engine) -> Templates:
    """The holder of another key."""
    return Templates(builder.url, OTHER_KEY)


def tags_of(templates: Templates, name: str) -> dict[str, str]:
    return {entry["tag"]: entry["buildID"] for entry in templates.get(f"/templates/{name}/tags").json()}


def test_the_answer_names_everything(templates: Templates) -> None:
    answer = templates.post("/v3/templates", json={"name": " Named:V1 ", "tags": ["v1", "v2"], "memoryMB": 512})
    made = answer.json()
    assert answer.status_code == 202
    assert (made["names"], made["aliases"], made["tags"], made["public"]) == (["named"], ["named"], ["v1", "v2"], False)
    uuid.UUID(made["buildID"])
    again = templates.post("/v2/templates", json={"alias": "named"}).json()
    assert again["templateID"] == made["templateID"]
    assert again["buildID"] != made["buildID"]
    assert again["tags"] == ["default"]


def test_a_tag_means_the_last_build_that_was_ready(templates: Templates) -> None:
    first = templates.build("tagged:v1", run("echo 1 > ~/n"))
    assert tags_of(templates, "tagged") == {"v1": first.build}
    check_error(templates.post("/v2/sandboxes", json={"templateID": "tagged"}), 404)
    second = templates.build("tagged", run("echo 2 > ~/n"))
    third = templates.request_build("tagged:v1", tags=["v3"])
    assert tags_of(templates, first.template) == {"v1": first.build, "default": second.build}
    third.start(steps=[run("echo 3 > ~/n")])
    third.wait()
    assert tags_of(templates, "tagged") == {"v1": third.build, "v3": third.build, "default": second.build}
    for reference, number in (("tagged:v1", b"3\n"), ("tagged", b"2\n"), (f"{first.template}:v3", b"3\n")):
        with templates.box(templateID=reference) as box:
            assert box.sh("cat ~/n").stdout == number


def test_tags_are_given_and_taken(templates: Templates) -> None:
    build = templates.build("moved")
    answer = templates.post("/templates/tags", json={"target": "moved:default", "tags": ["Stable", "v1", "v1"]})
    assert (answer.status_code, answer.json()) == (201, {"tags": ["stable", "v1"], "buildID": build.build})
    base = "/templates/moved/tags"
    assert templates.get(f"{base}/count").json() == {"total": 3}
    assert templates.get(f"{base}/exists?tag=STABLE").json() == {"exists": True, "normalizedTag": "stable"}
    assert templates.get(f"{base}/exists?tag=no").json()["exists"] is False
    (group,) = templates.get(f"{base}/groups?search=stab").json()["tags"]
    assert (group["tag"], group["hasMore"]) == ("stable", False)
    assert templates.get(f"{base}/v1/assignments").json()["data"][0]["buildId"] == build.build
    gone = templates.request("DELETE", "/templates/tags", json={"name": "moved", "tags": ["stable", "unknown"]})
    assert (gone.status_code, gone.content) == (204, b"")
    assert set(tags_of(templates, "moved")) == {"default", "v1"}
    check_error(templates.request("DELETE", "/templates/tags", json={"name": "moved", "tags": ["default"]}), 400)
    check_error(templates.request("DELETE", "/templates/tags", json={"name": "nothing", "tags": ["a"]}), 404)
    check_error(templates.post("/templates/tags", json={"target": "moved:none", "tags": ["a"]}), 404)
    for tags in ([], "a", ["a b"], [str(uuid.uuid4())], [7]):
        check_error(templates.post("/templates/tags", json={"target": "moved", "tags": tags}), 400)


def paged(templates: Templates, path: str, size: int, **more: str) -> list[list[str]]:
    """The names of tags, page by page."""
    pages: list[list[str]] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"tagsLimit": str(size), "tagsCursor": cursor} | more
        answer = templates.get(path, params=query).json()
        pages.append([group["tag"] for group in answer["tags"]])
        cursor = answer["nextCursor"]
    return pages


def test_tags_come_in_pages(templates: Templates) -> None:
    templates.build("many:a")
    for tag in ("c", "b"):
        assert templates.post("/templates/tags", json={"target": "many:a", "tags": [tag]}).status_code == 201
    path = "/templates/many/tags/groups"
    assert paged(templates, path, 2) == [["b", "c"], ["a"]]
    assert paged(templates, path, 2, sort="latest_asc") == [["a", "c"], ["b"]]
    assert paged(templates, path, 1, sort="name_asc") == [["a"], ["b"], ["c"]]
    assert paged(templates, path, 3, sort="name_desc") == [["c", "b", "a"]]
    assert paged(templates, path, 1, search="C") == [["c"]]
    for query in ("sort=x", "tagsLimit=0", "tagsLimit=101", "tagsLimit=x", "tagsCursor=none", "assignmentLimit=0"):
        check_error(templates.get(f"{path}?{query}"), 400)


def test_a_template_is_its_last_build_that_was_ready(templates: Templates) -> None:
    first = templates.build("last-ready", run("true"))
    failed = templates.request_build("last-ready", cpuCount=1)
    failed.start(steps=[run("false")])
    assert failed.wait()["status"] == "error"
    waiting = templates.request_build("last-ready")
    detail = templates.get("/templates/last-ready").json()
    assert (detail["buildID"], detail["buildStatus"], detail["cpuCount"]) == (first.build, "ready", 2)
    builds = [waiting.build, failed.build, first.build]
    assert [build["buildID"] for build in detail["builds"]] == builds
    page = templates.get("/templates/last-ready?limit=2")
    assert [build["buildID"] for build in page.json()["builds"]] == builds[:2]
    rest = templates.get("/templates/last-ready", params={"limit": "2", "nextToken": page.headers["x-next-token"]})
    assert [build["buildID"] for build in rest.json()["builds"]] == builds[2:]
    assert "x-next-token" not in rest.headers
    check_error(templates.get("/templates/last-ready?nextToken=x"), 400)


def test_pages_go_on_when_their_border_goes(templates: Templates) -> None:
    names = ["page-a", "page-b", "page-c"]
    made = [templates.request_build(name).template for name in names]
    first = templates.get("/v2/templates?limit=2")
    assert [row["templateID"] for row in first.json()] == [made[2], made[1]]
    assert templates.delete(f"/templates/{made[1]}").status_code == 204
    rest = templates.get("/v2/templates", params={"limit": "1", "nextToken": first.headers["x-next-token"]})
    assert [row["templateID"] for row in rest.json()] == [made[0]]
    build = templates.build("page-tags:a")
    templates.post("/templates/tags", json={"target": "page-tags:a", "tags": ["b", "c"]})
    path, query = "/templates/page-tags/tags/groups", {"tagsLimit": "2", "sort": "name_asc"}
    cursor = templates.get(path, params=query).json()["nextCursor"]
    templates.request("DELETE", "/templates/tags", json={"name": "page-tags", "tags": ["b"]})
    (group,) = templates.get(path, params=query | {"tagsCursor": cursor}).json()["tags"]
    assert (group["tag"], group["assignments"][0]["buildId"]) == ("c", build.build)


def test_lists_and_details(templates: Templates) -> None:
    build = templates.build("listed")
    listed = {entry["templateID"]: entry for entry in templates.get("/templates").json()}
    entry = listed[build.template]
    assert entry["buildID"] == build.build
    assert (entry["buildStatus"], entry["buildCount"], entry["aliases"]) == ("ready", 1, ["listed"])
    assert (entry["cpuCount"], entry["memoryMB"], entry["lastSpawnedAt"]) == (2, 1024, None)
    detail = templates.get("/templates/listed").json()
    assert [(b["buildID"], b["status"]) for b in detail["builds"]] == [(build.build, "ready")]
    assert templates.get("/default-templates").json()[0]["aliases"] == ["base"]
    assert templates.get("/templates/base").json()["public"] is True
    check_error(templates.get("/templates/nothing"), 404)
    pages: list[str] = []
    token = ""
    while True:
        answer = templates.get("/v2/templates", params={"limit": "2", "nextToken": token})
        pages += [row["templateID"] for row in answer.json()]
        if not (token := answer.headers.get("x-next-token", "")):
            break
    assert pages == list(listed)
    check_error(templates.get("/v2/templates?nextToken=x"), 400)


def test_aliases_tell_what_there_is(templates: Templates) -> None:
    build = templates.request_build("aliased")
    answer = templates.get(f"{ALIAS}/aliased")
    assert (answer.status_code, answer.json()) == (200, {"templateID": build.template, "public": False})
    check_error(templates.get(f"{ALIAS}/aliased:v1"), 404)
    check_error(templates.get(f"{ALIAS}/nothing"), 404)
    assert templates.get(f"{ALIAS}/base").json()["public"] is True


def test_each_key_sees_its_own_and_what_is_public(templates: Templates, other: Templates) -> None:
    build = templates.build("shared", run("echo mine > /tmp/x"))
    path = f"/templates/{build.template}"
    check_error(other.get(path), 404)
    check_error(other.get(f"{ALIAS}/shared"), 404)
    check_error(other.get(f"{build.path}/status"), 404)
    check_error(other.delete(path), 404)
    check_error(other.post("/v2/sandboxes", json={"templateID": build.template}), 404)
    assert build.template not in {entry["templateID"] for entry in other.get("/templates").json()}
    assert templates.patch(path, json={"public": True}).json() == {"names": ["shared"]}
    with other.box(templateID="shared") as box:
        assert box.sh("cat /tmp/x").stdout == b"mine\n"
    check_error(other.patch(path, json={"public": False}), 404)
    check_error(other.delete(path), 404)
    own = other.build("shared", run("echo other > /tmp/x"))
    assert own.template != build.template
    with other.box(templateID="shared") as box:
        assert box.sh("cat /tmp/x").stdout == b"other\n"
    check_error(templates.patch(f"/v2{path}", json={"public": "yes"}), 400)
    assert templates.patch(f"/v2{path}", json={"public": False}).status_code == 200
    check_error(other.post("/v2/sandboxes", json={"templateID": build.template}), 404)
    other.close()


def test_a_deleted_template_is_gone(templates: Templates) -> None:
    build = templates.build("gone", run("true"))
    with templates.box(templateID="gone"):
        check_error(templates.delete("/templates/gone"), 400)
    assert templates.delete("/templates/gone").status_code == 204
    check_error(templates.delete("/templates/gone"), 404)
    check_error(templates.get(f"{build.path}/status"), 404)
    check_error(templates.post("/v2/sandboxes", json={"templateID": "gone"}), 404)
    assert templates.request_build("gone").template != build.template
