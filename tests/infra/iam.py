"""The roles of a transformed template as IAM reads them, as far as they speak of the table."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from infra.reading import listed, resources, statements
from support.web import QuietHandler, ThreadedServer

OPERATORS = ("ForAllValues:StringEquals", "ForAllValues:StringLike")
DENIED = b'{"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "not authorized"}'


def granted(template: Any, function: str) -> set[tuple[str, str]]:
    """Pairs of a DynamoDB operation and a pattern of partition keys."""
    role = resources(template, "AWS::Lambda::Function")[function]["Role"]["Fn::GetAtt"][0]
    pairs = set()
    for name, statement in statements(template):
        actions = [each for each in listed(statement["Action"]) if each.startswith("dynamodb:")]
        if name == role and actions:
            assert (statement["Effect"], statement["Resource"]) == ("Allow", {"Fn::GetAtt": ["Table", "Arn"]})
            ((operator, condition),) = statement["Condition"].items()
            assert operator in OPERATORS
            assert set(condition) == {"dynamodb:LeadingKeys"}
            pairs |= {
                (action.removeprefix("dynamodb:"), key)
                for action in actions
                for key in listed(condition["dynamodb:LeadingKeys"])
            }
    return pairs


def leading_keys(operation: str, request: Any) -> Iterator[str]:
    """The partition keys of a request, which IAM sees as dynamodb:LeadingKeys."""
    if operation == "BatchGetItem":
        for asked in request["RequestItems"].values():
            yield from (key["pk"]["S"] for key in asked["Keys"])
    elif operation == "Query":
        assert request["KeyConditionExpression"].startswith("pk = :pk")
        yield request["ExpressionAttributeValues"][":pk"]["S"]
    else:
        yield request["Item" if operation == "PutItem" else "Key"]["pk"]["S"]


def allowed(template: Any, function: str, operation: str, request: Any) -> bool:
    pairs = granted(template, function)
    return all(
        any(operation == action and fnmatchcase(key, pattern) for action, pattern in pairs)
        for key in leading_keys(operation, request)
    )


class Guard(ThreadedServer):
    """DynamoDB at `url`, where each function may do what its role allows; `url_of` is for its environment."""

    def __init__(self, template: Any) -> None:
        self.url = ""
        self.denied: list[tuple[str, str, list[str]]] = []
        self.passed: set[tuple[str, str]] = set()  # function, operation
        guard = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                function, operation = self.path.strip("/"), self.headers["x-amz-target"].partition(".")[2]
                request = json.loads(body)
                if allowed(template, function, operation, request):
                    guard.passed.add((function, operation))
                    self._answer(*self._forwarded(body))
                else:
                    guard.denied.append((function, operation, list(leading_keys(operation, request))))
                    self._answer(400, DENIED)

            def _forwarded(self, body: bytes) -> tuple[int, bytes]:
                address = urlsplit(guard.url)
                connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
                named = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                connection.request("POST", "/", body, named | {"Host": address.netloc})
                answer = connection.getresponse()
                try:
                    return answer.status, answer.read()
                finally:
                    connection.close()

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/x-amz-json-1.0")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(Handler, "guard")

    def url_of(self, function: str) -> str:
        return f"http://{self.target}/{function}"
