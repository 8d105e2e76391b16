"""Nobody serves everybody by accident."""

import pytest

from serve_app.config import AuthConfig
from serve_app.config.bind import OpenOnPublicBindError, check_bind


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_open_on_loopback_is_allowed(host):
    check_bind(AuthConfig(mode="open"), host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", None, ""])
def test_open_on_any_other_address_is_refused(host):
    with pytest.raises(OpenOnPublicBindError, match="loopback"):
        check_bind(AuthConfig(mode="open"), host)


@pytest.mark.parametrize("auth", [AuthConfig(mode="open", force_open=True), AuthConfig()])
def test_keys_or_force_allow_any_address(auth):
    check_bind(auth, "0.0.0.0")
