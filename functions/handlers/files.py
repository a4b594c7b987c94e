"""Files and batches: uploads, their records, their text, and batches of requests. Once an hour it sweeps."""

from kimi_gateway.edge.aws.scheduled import SweepingFunction

handler = SweepingFunction(
    "/v1/files",
    "/v1/files/uploads",
    "/v1/files/{file}",
    "/v1/files/{file}/content",
    "/v1/batches",
    "/v1/batches/{batch}",
    "/v1/batches/{batch}/cancel",
)
