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


async def test_other_names_are_not_served(api):
    for name in ("x.js", "..%2f__init__.py", "swagger-ui.css.map"):
        assert (await api.http.get(f"/docs/{name}")).status_code == 404
