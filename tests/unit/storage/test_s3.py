"""What is special about a bucket, over real HTTP and with real signature checks."""

import urllib.error
import urllib.request
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from serve_app import errors
from serve_app.config import StorageConfig
from serve_app.storage.s3 import S3Store

KEY = "temp/0-a.png"
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture
def store(s3_server):
    return S3Store(s3_server.config())


async def test_put_keeps_the_media_type_and_the_prefix(s3_server, store):
    await store.put(KEY, b"x", "image/png")
    assert s3_server.media_type(f"site/a/{KEY}") == "image/png"


async def test_presigned_link_opens_without_a_key(store):
    await store.put(KEY, b"x", "image/png")
    link = await store.url(KEY, "http://unused", 60)
    assert (status_of(link), status_of(link.partition("?")[0])) == (200, 403)


async def test_presigned_link_made_before_the_file_is_there_opens_later(store):
    link = await store.url(KEY, "http://unused", 60)
    assert status_of(link) == 404
    await store.put(KEY, b"x", "image/png")
    assert status_of(link) == 200


@pytest.mark.parametrize(("later", "status"), [(DAY - MINUTE, 200), (DAY + MINUTE, 403)])
async def test_temp_link_ends_after_24_hours(s3_server, store, later, status):
    await store.put(KEY, b"x", "image/png")
    link = await store.url(KEY, "http://unused", DAY.total_seconds())
    s3_server.clock_offset = later
    assert status_of(link) == status


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0-a.png", "0-b.png"),
        ("X-Amz-Expires=60", "X-Amz-Expires=6000"),
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
    ],
)
async def test_tampered_link_is_refused(store, old, new):
    await store.put(KEY, b"x", "image/png")
    link = await store.url(KEY, "http://unused", 60)
    assert old in link
    assert status_of(link.replace(old, new)) == 403


async def test_put_with_a_wrong_secret_is_unavailable_and_tells_no_secret(s3_server):
    store = S3Store(s3_server.config(secret_access_key="wrong-secret"))
    with pytest.raises(errors.StorageUnavailable) as caught:
        await store.put(KEY, b"x", "image/png")
    assert "wrong-secret" not in str(caught.value)


async def test_url_of_a_result_that_stays_is_public_where_configured(s3_server):
    store = S3Store(s3_server.config(public_url="https://cdn.example.com/x"))
    link = await store.url("generations/0-a.png", "http://unused")
    assert link == "https://cdn.example.com/x/site/a/generations/0-a.png"
    assert "X-Amz-Signature" in await store.url(KEY, "http://unused", 60)


async def test_url_of_a_result_that_stays_is_else_presigned_for_link_ttl(s3_server):
    store = S3Store(s3_server.config(link_ttl_s=3600))
    query = parse_qs(urlsplit(await store.url(KEY, "http://unused")).query)
    assert query["X-Amz-Expires"] == ["3600"]


async def test_url_is_signed_for_the_endpoint_that_clients_reach(s3_server):
    store = S3Store(s3_server.config(link_endpoint_url="https://files.example.com"))
    link = urlsplit(await store.url(KEY, "http://unused", 60))
    assert (link.netloc, link.path) == ("files.example.com", f"/pictures/site/a/{KEY}")


async def test_call_is_repeated_while_the_server_fails(s3_server, store):
    s3_server.failures = [500, 503]
    await store.put(KEY, b"x", "image/png")
    assert s3_server.calls == ["PUT", "PUT", "PUT"]


async def test_call_gives_up_after_max_attempts(s3_server):
    store = S3Store(s3_server.config(max_attempts=2))
    s3_server.failures = [503] * 9
    with pytest.raises(errors.StorageUnavailable):
        await store.get(KEY)
    assert len(s3_server.calls) == 2


async def test_call_to_nobody_is_unavailable(s3_server):
    config = s3_server.config(endpoint_url="http://127.0.0.1:9", max_attempts=1)
    with pytest.raises(errors.StorageUnavailable):
        await S3Store(config).get(KEY)


async def test_bucket_that_is_missing_is_unavailable(s3_server):
    with pytest.raises(errors.StorageUnavailable):
        await S3Store(s3_server.config(bucket="nobodys-bucket")).get(KEY)


async def test_expire_looks_at_every_page(store, monkeypatch):
    for number in range(5):
        await store.put(f"temp/{number}.png", b"x", "image/png")
    paginator = store._client.get_paginator("list_objects_v2")
    paginate = paginator.paginate
    monkeypatch.setattr(store._client, "get_paginator", lambda _name: paginator)
    monkeypatch.setattr(
        paginator, "paginate", lambda **args: paginate(**args, PaginationConfig={"PageSize": 2})
    )
    assert await store.expire("temp", -60) == 5
    assert await store.get("temp/4.png") is None


async def test_ensure_lifecycle_adds_our_rules_and_keeps_others(store):
    theirs = {
        "ID": "theirs",
        "Status": "Enabled",
        "Filter": {"Prefix": "logs/"},
        "Expiration": {"Days": 30},
    }
    store._client.put_bucket_lifecycle_configuration(
        Bucket="pictures", LifecycleConfiguration={"Rules": [theirs]}
    )
    await store.ensure_lifecycle()
    await store.ensure_lifecycle()
    rules = store._client.get_bucket_lifecycle_configuration(Bucket="pictures")["Rules"]
    found = {rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in rules}
    assert found == {"logs/": 30, "site/a/temp/": 1, "site/a/inputs/": 1}
    assert len(rules) == 3


@pytest.mark.parametrize(("life_s", "days"), [(86_400, 1), (36 * 3600, 2), (60, 1), (172_801, 3)])
def test_rules_of_the_bucket_never_delete_before_the_time(store, life_s, days):
    assert store._rule("temp", life_s)["Expiration"] == {"Days": days}


def test_config_of_s3_without_a_bucket_is_refused():
    with pytest.raises(ValueError, match="names no bucket"):
        StorageConfig(backend="s3")


def test_config_with_half_credentials_is_refused(s3_server):
    with pytest.raises(ValueError, match="go together"):
        s3_server.config(secret_access_key=None)
