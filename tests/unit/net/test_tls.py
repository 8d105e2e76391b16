"""Dialling an address does not weaken the certificate check: the name still counts."""

import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serve_app.net import GuardedClient, Policy, Unreachable
from tests.unit.net.conftest import resolve

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize("name", ["good.test", "wrong.test"])
async def test_certificate_is_checked_against_the_name(serve, client, tmp_path, name):
    server_tls, client_tls = _certificate(tmp_path, name)
    server = await serve(OK, tls=server_tls)
    async with client(tls=client_tls) as guarded:
        url = f"https://good.test:{server.port}/"
        if name == "good.test":
            assert await guarded.get(url) == b"hello"
        else:
            with pytest.raises(Unreachable):
                await guarded.get(url)


async def test_authorities_that_the_environment_names_are_not_trusted(serve, tmp_path, monkeypatch):
    server_tls, _ = _certificate(tmp_path, "good.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    server = await serve(OK, tls=server_tls)
    async with GuardedClient(Policy(allowed_hosts=("good.test",)), resolve) as guarded:
        with pytest.raises(Unreachable, match="certificate"):
            await guarded.get(f"https://good.test:{server.port}/")


def _certificate(folder, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A self-signed certificate for a name: the server's context and one that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "cert.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=pem)
