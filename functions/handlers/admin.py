"""The operator's API. It is deployed only where the operator wants it; no other function has its rights."""

from kimi_gateway.edge.aws.function import Function

handler = Function(
    "/admin/accounts",
    "/admin/accounts/{account}",
    "/admin/accounts/{account}/grant",
    "/admin/accounts/{account}/deduct",
    "/admin/packages",
    "/admin/keys",
    "/admin/keys/{key}",
    "/admin/keys/{key}/suspend",
    "/admin/keys/{key}/resume",
    "/admin/keys/{key}/rotate",
    "/admin/usage",
    "/admin/pool",
    "/admin/problems",
    "/admin/requests",
)
