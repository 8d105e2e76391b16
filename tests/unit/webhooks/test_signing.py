"""Signatures, recomputed with nothing but hmac."""

import base64
import hashlib
import hmac
import json
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from serve_app.webhooks.signing import Signer, new_secret

# The vector that the reference libraries test themselves with.
EXAMPLE = {
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "timestamp": 1614265330,
    "body": '{"test": 2432232314}',
    "signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
BODY = json.dumps({"id": 1, "track_id": "é😀"}, ensure_ascii=False)


def recomputed(secret, message_id, timestamp_s, body):
    key = base64.b64decode(secret.removeprefix("whsec_"))
    text = b".".join([message_id.encode(), str(timestamp_s).encode(), body.encode()])
    return "v1," + base64.b64encode(hmac.digest(key, text, hashlib.sha256)).decode()


def test_headers_of_the_example_are_the_published_ones():
    signer = Signer([EXAMPLE["secret"]])
    assert signer.headers(EXAMPLE["id"], EXAMPLE["timestamp"], EXAMPLE["body"]) == {
        "webhook-id": EXAMPLE["id"],
        "webhook-timestamp": "1614265330",
        "webhook-signature": EXAMPLE["signature"],
    }


@pytest.mark.parametrize("timestamp_s", [0, 1, 1_700_000_000, 2**33])
def test_signature_equals_an_independent_hmac(timestamp_s):
    secret = new_secret()
    headers = Signer([secret]).headers("msg_a", timestamp_s, BODY)
    assert headers["webhook-signature"] == recomputed(secret, "msg_a", timestamp_s, BODY)


def test_either_secret_verifies_while_secrets_change():
    new, old = new_secret(), new_secret()
    headers = Signer([new, old]).headers("msg_a", int(time.time()), BODY)
    for secret in (new, old):
        assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers)


@pytest.mark.parametrize(
    "forge",
    [
        lambda headers, body: (headers, body.replace("1", "2")),
        lambda headers, body: ({**headers, "webhook-id": "msg_b"}, body),
        lambda headers, body: ({**headers, "webhook-timestamp": str(int(time.time()) + 9)}, body),
    ],
    ids=["body", "id", "timestamp"],
)
def test_forged_message_does_not_verify(forge):
    secret = new_secret()
    headers, body = forge(Signer([secret]).headers("msg_a", int(time.time()), BODY), BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


@pytest.mark.parametrize("skew_s", [-600, 600])
def test_message_of_another_time_does_not_verify(skew_s):
    secret = new_secret()
    headers = Signer([secret]).headers("msg_a", int(time.time()) + skew_s, BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, headers)


def test_signer_without_secrets_sends_no_signature():
    assert set(Signer([]).headers("msg_a", 1, BODY)) == {"webhook-id", "webhook-timestamp"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!", "plJ3nmyCDGBKInavdOK15jsl", "whsec_" + "A" * 400],
)
def test_signer_of_a_bad_secret_is_refused_without_repeating_it(secret):
    with pytest.raises(ValueError, match="24 to 64 bytes") as caught:
        Signer([secret])
    assert secret in ("", "whsec_") or secret not in str(caught.value)
