"""The pages for people: static files. Its function can do nothing else."""

from kimi_gateway.edge.aws.pages import PagesFunction

handler = PagesFunction("/", "/my-credits", "/admin", "/pages/{file+}")
