"""Invitations leave by a real SMTP relay (aiosmtpd): plain on loopback, by STARTTLS and TLS with a certificate of an
authority of our own, with a user name and a password.
"""
import datetime
import email
import email.policy
import logging
import pathlib
import socket
import ssl
import tempfile
import unittest

import requests
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dashboard import Dashboard

logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)  # a handshake that a test wants to fail

USER, PASSWORD = b"wire socket", b"s/cret@1"
ENCODED = "wire%20socket:s%2Fcret%401"


class Authority:
    """Signs the certificate of a relay at `localhost`."""

    def __init__(self, folder):
        now = datetime.datetime.now(datetime.timezone.utc)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An authority of our own")])
        authority = self.build(name, name, key, key, now, x509.BasicConstraints(ca=True, path_length=0))
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        relay = self.build(subject, name, own, key, now, x509.SubjectAlternativeName([x509.DNSName("localhost")]))
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        kept = folder / "relay.pem"
        private = own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        kept.write_bytes(relay.public_bytes(serialization.Encoding.PEM) + private)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(kept)

    @staticmethod
    def build(subject, issuer, key, signer, now, extension):
        day = datetime.timedelta(days=1)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
        return builder.add_extension(extension, critical=True).sign(signer, hashes.SHA256())


class Relay(Controller):
    """Keeps the letters, and how each came: whether over TLS, and as whom."""

    def __init__(self, **options):
        self.letters = []
        super().__init__(self, hostname="127.0.0.1", port=0, authenticator=self.authenticate, **options)

    def authenticate(self, server, session, envelope, mechanism, given):
        good = (given.login, given.password) == (USER, PASSWORD)
        return AuthResult(success=good, handled=good, auth_data=given.login if good else None)

    async def handle_DATA(self, server, session, envelope):
        letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
        is_secure = server.transport.get_extra_info("ssl_object") is not None
        self.letters.append((is_secure, session.auth_data, letter))
        return "250 OK"

    def _trigger_server(self):
        """A first connection; the base class would make it to the port that it was told, which is 0."""
        self.port = self.server.sockets[0].getsockname()[1]
        with socket.create_connection((self.hostname, self.port), timeout=5) as stream:
            if self.ssl_context is None:
                stream.recv(1024)
                return
            anybody = ssl.create_default_context()
            anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
            with anybody.wrap_socket(stream) as secure:
                secure.recv(1024)


class Mail(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = pathlib.Path(directory.name)
        self.authority = Authority(self.folder)

    def relay(self, **options):
        relay = Relay(**options)
        relay.start()
        self.addCleanup(relay.stop)
        return relay

    def dashboard(self, url, ca_file=None):
        (self.folder / "url").write_text(url + "\n")
        (self.folder / "url").chmod(0o600)
        more = f'[mail]\nfrom = "WireSocket <no-reply@example.com>"\nsmtp_url = {{ file = "{self.folder / "url"}" }}\n'
        more += f'ca_file = "{ca_file}"\n' if ca_file else ""
        dashboard = Dashboard(more)
        self.addCleanup(lambda: dashboard.process.poll() is not None or dashboard.stop())
        tenant = dashboard.admin("create-tenant", "Acme", "--owner", "owner@example.com", "--approve")["tenant"]
        self.key = {"Authorization": "Bearer " + dashboard.admin("create-api-key", "test")["apiKey"]}
        self.invitations = f"{dashboard.issuer}/api/v1/tenants/{tenant}/invitations"
        return dashboard

    def invite(self):
        body = {"email": "Grace@Example.com", "role": "developer"}
        return requests.post(self.invitations, json=body, headers=self.key)

    def invited(self):
        return requests.get(self.invitations, headers=self.key).json()["items"]

    def check_letter(self, dashboard, relay, is_secure, login):
        answer = self.invite()
        self.assertEqual(answer.status_code, 201, answer.text)
        self.assertEqual(len(relay.letters), 1)
        came_secure, came_as, letter = relay.letters[0]
        self.assertEqual((came_secure, came_as), (is_secure, login))
        self.assertEqual(letter["From"], "WireSocket <no-reply@example.com>")
        self.assertEqual(letter["To"].lower(), "grace@example.com")
        self.assertIn(f"{dashboard.issuer}/invitation#", letter.get_content())
        self.assertEqual(dashboard.stop(), 0)

    def refused(self, dashboard):
        answer = self.invite()
        self.assertEqual(answer.status_code, 502, answer.text)
        self.assertEqual(answer.headers["content-type"], "application/problem+json")
        self.assertEqual(self.invited(), [], "nobody is invited whom no letter reached")
        self.assertEqual(dashboard.stop(), 0)
        return answer.json()["detail"]

    def test_plain_on_loopback(self):
        relay = self.relay()
        dashboard = self.dashboard(f"smtp://127.0.0.1:{relay.port}")
        self.check_letter(dashboard, relay, False, None)

    def test_starttls_with_an_authority_of_our_own(self):
        relay = self.relay(tls_context=self.authority.context, require_starttls=True, auth_required=True)
        url = f"smtp://{ENCODED}@localhost:{relay.port}?tls=required"
        self.check_letter(self.dashboard(url, self.authority.ca_file), relay, True, USER)

    def test_tls_from_the_start(self):
        relay = self.relay(ssl_context=self.authority.context)
        url = f"smtps://localhost:{relay.port}"
        self.check_letter(self.dashboard(url, self.authority.ca_file), relay, True, None)

    def test_a_certificate_of_nobody_known_gets_no_letter_and_no_password(self):
        relay = self.relay(tls_context=self.authority.context, require_starttls=True, auth_required=True)
        dashboard = self.dashboard(f"smtp://{ENCODED}@localhost:{relay.port}?tls=required")
        self.refused(dashboard)
        self.assertEqual(relay.letters, [])
        self.assertIn("UnknownIssuer", dashboard.log)

    def test_a_wrong_password_says_what_to_do(self):
        relay = self.relay(tls_context=self.authority.context, require_starttls=True, auth_required=True)
        url = f"smtp://{ENCODED}x@localhost:{relay.port}?tls=required"
        dashboard = self.dashboard(url, self.authority.ca_file)
        self.assertIn("its operator corrects mail.smtp_url", self.refused(dashboard))
        self.assertEqual(relay.letters, [])
        self.assertIn("refuses the user name or password of mail.smtp_url", dashboard.log)
        self.assertNotIn("cret", dashboard.log)

    def test_a_relay_that_is_not_there(self):
        relay = Relay()
        relay.start()
        port = relay.port
        relay.stop()
        dashboard = self.dashboard(f"smtp://127.0.0.1:{port}")
        self.assertIn("try again later", self.refused(dashboard))

    def test_an_authority_without_tls_is_refused_at_the_start(self):
        with self.assertRaisesRegex(RuntimeError, "asks for no TLS"):
            self.dashboard("smtp://127.0.0.1:1", self.authority.ca_file)


if __name__ == "__main__":
    unittest.main()
