"""Files: uploads, their records and their text."""

from kimi_gateway.edge.aws.function import Function

handler = Function("/v1/files", "/v1/files/uploads", "/v1/files/{file}", "/v1/files/{file}/content")
