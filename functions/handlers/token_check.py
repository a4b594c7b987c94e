"""The token check. It is open to all, so its function can do nothing else."""

from kimi_gateway.edge.aws.function import Function

handler = Function("/token/check")
