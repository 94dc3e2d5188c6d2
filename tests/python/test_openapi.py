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
            if "get" not in item or "{" in url or url.endswith("/export"):
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

    def test_a_new_app_is_what_it_says(self):
        answer = self.http.post(
            f"{self.url}/tenants/{self.tenant}/apps", json={"name": "Notes", "region": "aws-eu-west-1"}
        )
        self.assertEqual(answer.status_code, 201)
        self.check("/api/v1/tenants/{tenant}/apps", "post", answer)


if __name__ == "__main__":
    unittest.main()
