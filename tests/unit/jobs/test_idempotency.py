"""A key of the client's choice means one request, for a day."""

import pytest

from serve_app import errors
from serve_app.jobs.protocol import Idempotency


def test_same_request_may_be_repeated():
    Idempotency("order-7", "digest").check("digest")


@pytest.mark.parametrize("digest", ["another", "digest ", "", None])
def test_other_request_with_the_same_key_is_refused(digest):
    with pytest.raises(errors.InvalidRequest) as caught:
        Idempotency("order-7", "digest").check(digest)
    assert caught.value.field == "Idempotency-Key"
    assert caught.value.detail == "This Idempotency-Key was used for a different request."


def test_key_may_name_another_job_after_a_day():
    assert Idempotency("order-7", "digest").ttl_s == 24 * 60 * 60
