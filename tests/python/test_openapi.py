"""The management API's document is valid OpenAPI 3.1, and answers are what it says."""
import unittest

import requests
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from dashboard import Dashboard


class Document(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dashboard = Dashboard()
        cls.url = f"{cls.dashboard.issuer}/api/v1"
        cls.tenant = cls.dashboard.admin("create-tenant", "Acme", "--owner", "owner@example.com", "--approve")["tenant"]
        cls.app = cls.dashboard.admin("create-app", cls.tenant, "Notes", "--plan", "free")["appId"]
        cls.http = requests.Session()
        cls.http.headers["Authorization"] = "Bearer " + cls.dashboard.admin("create-api-key", "test")["apiKey"]
        cls.document = cls.http.get(f"{cls.url}/openapi.json").json()

    @classmethod
    def tearDownClass(cls):
        cls.http.close()
        assert cls.dashboard.stop() == 0

    def check(self, path, method, answer):
        """The answer is one of those that the document has for this route."""
        response = self.document["paths"][path][method]["responses"][str(answer.status_code)]
        if "$ref" in response:
            response = self.document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        kind = answer.headers["content-type"].split(";")[0]
        schema = response["content"][kind]["schema"]
        # Beside the document, so that the references in the schema lead somewhere.
        Draft202012Validator({**self.document, "allOf": [schema]}).validate(answer.json())

    def test_it_is_valid(self):
        OpenAPIV31SpecValidator(self.document).validate()

    def test_examples_are_what_their_schemas_say(self):
        for name, schema in self.document["components"]["schemas"].items():
            for example in [schema["example"]] if "example" in schema else schema.get("examples", []):
                with self.subTest(name):
                    reference = {"$ref": f"#/components/schemas/{name}"}
                    Draft202012Validator({**self.document, "allOf": [reference]}).validate(example)

    def test_what_is_read_is_what_it_says(self):
        ids = {"{tenant}": self.tenant, "{app}": self.app, "{plan}": "free"}
        checked = 0
        for path, item in self.document["paths"].items():
            url = path
            for name, value in ids.items():
                url = url.replace(name, value)
            # What nodes call has other credentials, and the feed no end.
            if "get" not in item or "{" in url or url.endswith("/export") or item["get"]["tags"] == ["node side"]:
                continue
            with self.subTest(path):
                answer = self.http.get(self.dashboard.issuer + url)
                self.assertEqual(answer.status_code, 200)
                self.check(path, "get", answer)
                checked += 1
        self.assertGreater(checked, 15)

    def test_refusals_are_what_it_says(self):
        path = "/api/v1/tenants/{tenant}/apps"
        url = f"{self.url}/tenants/{self.tenant}/apps"
        body = {"name": "Notes", "region": "aws-eu-west-1", "plan": "free"}
        for status, answer in [
            (422, self.http.post(url, json=body)),
            (415, self.http.post(url, data="x")),
            (400, self.http.post(url, data="x", headers={"Content-Type": "application/json"})),
            (401, self.http.post(url, json=body, headers={"Authorization": "Bearer wsk_guess"})),
            (404, self.http.post(url.replace(self.tenant, self.app), json={"name": "Notes", "region": "aws-eu-west-1"})),
        ]:
            with self.subTest(status):
                self.assertEqual(answer.status_code, status)
                self.check(path, "post", answer)

    def post(self, path, url, body, status):
        """The answer to a POST, which is what the document says."""
        answer = self.http.post(self.dashboard.issuer + url, json=body)
        self.assertEqual(answer.status_code, status, answer.text)
        if answer.content:
            self.check(path, "post", answer)
        return answer.json() if answer.content else None

    def test_plans_and_money_are_what_it_says(self):
        apps = "/api/v1/tenants/{tenant}/apps"
        app = self.post(apps, apps.replace("{tenant}", self.tenant), {"name": "Shop", "region": "aws-us-east-1"}, 201)["id"]
        there = f"/api/v1/tenants/{self.tenant}"
        subscription = "/api/v1/tenants/{tenant}/apps/{app}/subscription"
        own = f"{there}/apps/{app}/subscription"
        preview = self.post(subscription + "/preview", own + "/preview", {"plan": "starter"}, 200)
        quote = {"plan": "starter", "quote": preview["quote"]}
        picked = self.post(subscription, own, quote, 200)
        self.post(subscription, own, quote, 409)
        invoice, path = f"{there}/invoices/{picked['invoice']}", "/api/v1/tenants/{tenant}/invoices/{invoice}"
        self.check(path, "get", self.http.get(self.dashboard.issuer + invoice))
        self.post(path + "/checkout", invoice + "/checkout", {}, 200)
        self.post(path + "/mark-paid", invoice + "/mark-paid", {"amountCents": 1000}, 200)
        self.post(path + "/write-off", invoice + "/write-off", {"reason": "test"}, 200)
        self.post(path + "/write-off", invoice + "/write-off", {}, 409)
        for verb in ["cancel", "uncancel"]:
            self.post(f"{subscription}/{verb}", f"{own}/{verb}", {}, 200)
        for path, url in [
            ("/api/v1/tenants/{tenant}/invoices", f"{there}/invoices"),
            ("/api/v1/tenants/{tenant}/subscriptions", f"{there}/subscriptions"),
        ]:
            self.check(path, "get", self.http.get(self.dashboard.issuer + url))
        history = self.http.get(f"{self.dashboard.issuer}{there}/apps/{app}/usage/history?step=hour")
        self.check("/api/v1/tenants/{tenant}/apps/{app}/usage/history", "get", history)
        self.post(subscription + "/end", own + "/end", {}, 204)
        plan = self.document["components"]["schemas"]["NewPlan"]["example"]
        self.post("/api/v1/plans", "/api/v1/plans", plan, 201)
        for verb in ["retire", "offer"]:
            self.post("/api/v1/plans/{plan}/" + verb, f"/api/v1/plans/{plan['id']}/{verb}", {}, 200)

    def test_tokens_and_nodes_are_what_it_says(self):
        issuer = self.dashboard.issuer
        app = self.dashboard.admin("create-app", self.tenant, "Tokens", "--plan", "starter")
        client = {"client_id": app["clientId"], "client_secret": app["clientSecret"]}
        form = {**client, "grant_type": "client_credentials", "scope": "WireSocket.API offline_access"}
        answer = requests.post(f"{issuer}/connect/token", data=form)
        self.assertEqual(answer.status_code, 200)
        self.check("/connect/token", "post", answer)
        for status, wrong in [(400, {"scope": "x"}), (401, {"client_secret": "x"}), (400, {"grant_type": "x"})]:
            refused = requests.post(f"{issuer}/connect/token", data={**form, **wrong})
            self.assertEqual(refused.status_code, status)
            self.check("/connect/token", "post", refused)
        self.check("/{tenant}/.well-known/jwks", "get", requests.get(f"{issuer}/{self.tenant}/.well-known/jwks"))
        self.check("/{tenant}/.well-known/jwks", "get", requests.get(f"{issuer}/{self.app}/.well-known/jwks"))

        secret = self.http.post(f"{self.url}/nodes/enrolment-secrets", json={}).json()["enrolmentSecret"]
        schemas = self.document["components"]["schemas"]

        def node(path, bearer, body):
            answer = requests.post(issuer + path, json=body, headers={"Authorization": f"Bearer {bearer}"})
            self.check(path, "post", answer)
            return answer.status_code, answer.json()

        enrol, beat, usage = (f"/api/v1/nodes/{path}" for path in ["enrol", "self/heartbeat", "self/usage"])
        self.assertEqual(node(enrol, "wse_guess", schemas["EnrolRequest"]["example"])[0], 401)
        status, enrolled = node(enrol, secret, schemas["EnrolRequest"]["example"])
        self.assertEqual(status, 201)
        self.assertEqual(node(beat, enrolled["credential"], schemas["HeartbeatRequest"]["example"])[0], 200)
        report = {"boot": schemas["HeartbeatRequest"]["example"]["boot"], "sequence": 1, "apps": []}
        self.assertEqual(node(usage, enrolled["credential"], report), (200, {"taken": True}))
        self.assertEqual(node(beat, enrolled["credential"], {})[0], 400)
        feed = requests.get(f"{self.url}/nodes/self/keys", headers={"Authorization": "Bearer wsn_guess"})
        self.assertEqual(feed.status_code, 401)
        self.check("/api/v1/nodes/self/keys", "get", feed)

    def test_a_new_app_is_what_it_says(self):
        answer = self.http.post(
            f"{self.url}/tenants/{self.tenant}/apps", json={"name": "Notes", "region": "aws-eu-west-1"}
        )
        self.assertEqual(answer.status_code, 201)
        self.check("/api/v1/tenants/{tenant}/apps", "post", answer)


if __name__ == "__main__":
    unittest.main()
