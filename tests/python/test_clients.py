"""Authlib gets and renews tokens at the dashboard's token endpoint, PyJWT verifies them from the tenant's key set.

    make test-python                                # from the root: installs and builds what is missing, then runs them
    .venv/bin/python -m unittest                    # here, with a binary that is there already

WIRESOCKET_BIN names the binary; without it, it is cargo's debug build.
"""
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import unittest

import jwt
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = os.environ.get("WIRESOCKET_BIN", str(TARGET / "debug" / "wiresocket"))
SCOPE = "WireSocket.API offline_access"


class Dashboard:
    """`wiresocket dashboard` on a database of its own; its issuer is its own address."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory()
        path = pathlib.Path(self.directory.name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = "127.0.0.1:%d" % free.getsockname()[1]
        self.issuer = f"http://{address}"
        self.config = path / "dashboard.toml"
        subprocess.run([BINARY, "admin", "generate-master-key", path / "key"], check=True, capture_output=True)
        self.config.write_text(
            f'[dashboard]\nlisten = "{address}"\nissuer = "{self.issuer}"\noperator_email = "ops@example.com"\n'
            f'[database]\nhome = "sqlite:{path / "home.db"}"\n[master_keys]\n1 = {{ file = "{path / "key"}" }}\n'
        )
        command = [BINARY, "dashboard", "--config", self.config]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "listening" in line:
                return
        raise RuntimeError("the dashboard ended before it listened")

    def admin(self, *arguments):
        command = [BINARY, "admin", "--config", self.config, *arguments]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    def stop(self):
        self.process.terminate()
        self.process.communicate()
        self.directory.cleanup()
        return self.process.returncode


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dashboard = Dashboard()
        tenant = cls.dashboard.admin("create-tenant", "Acme", "--owner", "owner@example.com", "--approve")["tenant"]
        cls.app = cls.dashboard.admin("create-app", tenant, "Notes", "--plan", "free")

    @classmethod
    def tearDownClass(cls):
        assert cls.dashboard.stop() == 0

    def session(self, method):
        return OAuth2Session(
            self.app["clientId"], self.app["clientSecret"], scope=SCOPE, token_endpoint_auth_method=method
        )

    def verified(self, token):
        keys = jwt.PyJWKClient(f"{self.dashboard.issuer}/{self.app['tenantId']}/.well-known/jwks")
        return jwt.decode(
            token,
            keys.get_signing_key_from_jwt(token).key,
            algorithms=["RS256"],
            audience="WireSocket.API",
            issuer=self.dashboard.issuer,
            options={"require": ["exp", "iat", "jti"]},
        )

    def test_authlib_gets_and_renews_tokens_that_pyjwt_verifies(self):
        endpoint = f"{self.dashboard.issuer}/connect/token"
        for method in ["client_secret_basic", "client_secret_post"]:
            with self.subTest(method), self.session(method) as session:
                first = session.fetch_token(endpoint, grant_type="client_credentials")
                claims = self.verified(first["access_token"])
                self.assertEqual(claims["sub"], self.app["clientId"])
                self.assertEqual(claims["limits"]["maxUsersPerDoc"], 10)
                spent = first["refresh_token"]
                second = session.refresh_token(endpoint, refresh_token=spent)
                self.assertNotEqual(second["refresh_token"], spent)
                self.verified(second["access_token"])
                with self.assertRaises(OAuthError) as refused:
                    session.refresh_token(endpoint, refresh_token=spent)
                self.assertEqual(refused.exception.error, "invalid_grant")


if __name__ == "__main__":
    unittest.main()
