"""Authlib gets and renews tokens at the dashboard's token endpoint, PyJWT verifies them from the tenant's key set.

    make test-python                                # from the root: installs and builds what is missing, then runs them
    .venv/bin/python -m unittest                    # here, with a binary that is there already

WIRESOCKET_BIN names the binary; without it, it is cargo's debug build.
"""
import unittest

import jwt
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session

from dashboard import Dashboard

SCOPE = "WireSocket.API offline_access"


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
