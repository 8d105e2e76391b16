"""`/docs` works where nothing but the server can be reached."""

import re


async def test_page_and_all_that_it_loads_come_from_the_server(api):
    page = await api.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    named = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert len(named) == 3
    for address in [*named, "/openapi.json"]:
        assert address.startswith("/"), "of this server"
        answer = await api.http.get(address)
        assert answer.status_code == 200
        assert len(answer.content) > 500
    assert "http" not in page.text.replace("https://validator", "")


async def test_schema_names_the_answer_of_a_call_before_its_error(api):
    schema = (await api.http.get("/openapi.json")).json()
    several = 0
    for path, calls in schema["paths"].items():
        for call in calls.values():
            assert call["tags"], path
            said = call["responses"].get("200", {}).get("content", {}).get("application/json", {})
            named = [one.get("$ref", "") for one in said.get("schema", {}).get("anyOf", ())]
            if named:
                several += 1
                assert not named[0].endswith("/ErrorReply"), path
                assert named[-1].endswith("/ErrorReply"), path
    assert several > 10


async def test_schema_of_a_body_lets_what_may_be_left_out_be_null(api):
    schema = (await api.http.get("/openapi.json")).json()
    several = 0
    for path, calls in schema["paths"].items():
        if not path.startswith("/api/"):
            continue
        body = calls.get("post", {}).get("requestBody", {}).get("content", {})
        said = body.get("application/json", {}).get("schema", {})
        for field in said.get("properties", {}).keys() - set(said.get("required", ())):
            several += 1
            own = said["properties"][field]
            is_lax = {"type": "null"} in own.get("anyOf", ()) or None in own.get("enum", ())
            assert is_lax, (path, field)
    assert several > 100


async def test_calls_have_names_of_their_own_by_family(api):
    """Programs that make a client of the schema name its functions by them."""
    schema = (await api.http.get("/openapi.json")).json()
    names = [
        (path, call["operationId"]) for path, calls in schema["paths"].items()
        for call in calls.values()
    ]  # fmt: skip
    assert len({name for _, name in names}) == len(names)
    for path, name in names:
        if path.startswith("/api/"):
            family, *_ = path.removeprefix("/api/").split("/")
            assert name.startswith(f"{family}_"), path


async def test_other_names_are_not_served(api):
    for name in ("x.js", "..%2f__init__.py", "swagger-ui.css.map"):
        assert (await api.http.get(f"/docs/{name}")).status_code == 404
