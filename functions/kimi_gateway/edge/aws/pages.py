"""The function of the pages. It starts no gateway, so its role needs no table and no secret."""

from __future__ import annotations

from kimi_gateway import settings
from kimi_gateway.edge.aws.cloudwatch import to_cloudwatch
from kimi_gateway.edge.aws.function import Function
from kimi_gateway.edge.router import Router
from kimi_gateway.edge.routes import pages


class PagesFunction(Function):
    async def start(self) -> None:
        """Raises SettingsFault."""
        values = settings.read()
        to_cloudwatch(values.log_level)
        own = tuple(route for route in pages() if route.path in self._paths)
        self._router, self._limit = Router(own), values.body_limit
