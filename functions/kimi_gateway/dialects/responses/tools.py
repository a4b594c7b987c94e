"""Translates the client's kinds of tools into functions, and the model's calls back."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects.responses.web_search import KINDS, is_kind
from kimi_gateway.dialects.tool_set import ToolSet
from kimi_gateway.pivot import fields
from kimi_gateway.pivot.fields import Check, fail
from kimi_gateway.pivot.search_fields import is_vendors

# A custom tool takes free text; the model writes it into the one argument of a function.
FREE_TEXT = "input"
_FREE_FORM = {
    "type": "object",
    "properties": {FREE_TEXT: {"type": "string", "description": "The whole input of the tool, as it is."}},
    "required": [FREE_TEXT],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Known:
    """The client's name for a tool that the model calls by one flat name."""

    name: str
    namespace: str | None = None
    custom: bool = False


@dataclass(slots=True)
class Toolbox:
    """The tools of one request: as the model sees them, and as the client knows them."""

    tool_set: ToolSet = field(default_factory=ToolSet)
    _known: dict[str, Known] = field(default_factory=dict)

    @property
    def free(self) -> frozenset[str]:
        """The flat names of custom tools."""
        return frozenset(name for name, known in self._known.items() if known.custom)

    def known(self, flat: str) -> Known:
        return self._known.get(flat) or Known(flat)

    def add(self, tools: Any, where: str) -> None:
        """Add one list of tools; the newest tool of a name wins. Tools that only OpenAI's servers could run
        are dropped. Raises InvalidRequest."""
        fields.array(tools, where)
        fresh = set[str]()
        for index, tool in enumerate(tools):
            here = f"{where}.{index}"
            fields.mapping(tool, here)
            fields.string(tool.get("type"), f"{here}.type")
            if tool["type"] == "namespace":
                self._add_namespace(tool, here, fresh)
            elif is_vendors(tool):
                self.tool_set.left_out.append("$web_search")
            elif tool["type"] == "builtin_function":  # the vendor's own, which may have any shape
                self.tool_set.add(here, tool)
            elif tool["type"] in _KINDS:
                self._add(tool, here, fresh)
            else:
                self.tool_set.left_out.append(tool["type"])

    def _add_namespace(self, tool: dict[str, Any], here: str, fresh: set[str]) -> None:
        fields.string(tool.get("name"), f"{here}.name")
        fields.array(tool.get("tools"), f"{here}.tools")
        fields.apply(fields.drop_nulls(tool, _FIELDS), _FIELDS, f"{here}.")
        about = tool.get("description") or ""
        for index, member in enumerate(tool["tools"]):
            fields.mapping(member, f"{here}.tools.{index}")
            fields.one_of(*_KINDS)(member.get("type"), f"{here}.tools.{index}.type")
            self._add(member, f"{here}.tools.{index}", fresh, tool["name"], about)
            about = ""  # once is enough

    def _add(
        self, tool: dict[str, Any], here: str, fresh: set[str], namespace: str | None = None, about: str = ""
    ) -> None:
        fields.string(tool.get("name"), f"{here}.name")
        fields.apply(fields.drop_nulls(tool, _FIELDS), _FIELDS, f"{here}.")
        name = flat(tool["name"], namespace)
        if name in fresh:
            fail(f"{here}.name", f"function name {name[:80]} is duplicated")
        fresh.add(name)
        self._known[name] = Known(tool["name"], namespace, tool["type"] == "custom")
        described = "\n\n".join(filter(None, (about, tool.get("description"))))
        function = _KINDS[tool["type"]](tool, described)
        self.tool_set.add(here, {"type": "function", "function": {"name": name, **function}}, name)

    def choose(self, choice: Any) -> Any:
        """The pivot's `tool_choice`. Raises InvalidRequest if it names a missing tool."""
        if isinstance(choice, str):
            fields.one_of("auto", "none", "required")(choice, "tool_choice")
            if choice == "required" and not self.tool_set.placed:
                if KINDS & set(self.tool_set.left_out):
                    return None
                fail("tool_choice", "there is no tool that can be called")
            return choice
        fields.mapping(choice, "tool_choice")
        if is_kind(choice.get("type")):  # a note asks the model, since nobody can force the gateway's tool
            return None
        fields.one_of(*_KINDS, "allowed_tools")(choice.get("type"), "tool_choice.type")
        if choice["type"] in _KINDS:
            return self._named(choice, "tool_choice")
        return self._allowed(choice)

    def _named(self, choice: dict[str, Any], where: str) -> dict[str, Any]:
        fields.string(choice.get("name"), f"{where}.name")
        name = flat(choice["name"], choice.get("namespace"))
        if name not in self._known:
            fail(f"{where}.name", f"there is no tool {name[:80]}")
        return {"type": "function", "function": {"name": name}}

    def _allowed(self, choice: dict[str, Any]) -> Any:
        fields.one_of("auto", "required")(choice.get("mode"), "tool_choice.mode")
        fields.array(choice.get("tools"), "tool_choice.tools")
        allowed = []
        for index, tool in enumerate(choice["tools"]):
            fields.mapping(tool, f"tool_choice.tools.{index}")
            if tool.get("type") in tuple(_KINDS):  # tools of other kinds were dropped
                allowed.append(self._named(tool, f"tool_choice.tools.{index}"))
        if not allowed and choice["mode"] == "required":
            fail("tool_choice.tools", "none of them can be called")
        if not allowed:
            return "none"
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice["mode"], "tools": allowed}}


def flat(name: str, namespace: object) -> str:
    """The one name that the model sees; the same for a tool and for its calls in a history."""
    return f"{namespace}__{name}" if isinstance(namespace, str) and namespace else name


def _function(tool: dict[str, Any], described: str) -> dict[str, Any]:
    function = {"description": described} if described else {}
    for name in ("parameters", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    return function


def _custom(tool: dict[str, Any], described: str) -> dict[str, Any]:
    """The grammar goes into the description: the upstream cannot enforce it, but models mostly follow it."""
    form = tool.get("format") or {}
    if form.get("type") == "grammar":
        syntax, definition = form.get("syntax"), form.get("definition")
        described += f"\n\nThe input must follow this grammar ({syntax}):\n{definition}"
    return {"description": described.strip(), "parameters": _FREE_FORM, "strict": False}


_KINDS = {"function": _function, "custom": _custom}


def _not_deferred(value: Any, where: str) -> None:
    if value is not False:
        fail(where, "is not supported: send the tools themselves")


_FIELDS: dict[str, Check] = {
    "description": fields.string,
    "strict": fields.boolean,
    "format": fields.mapping,
    "defer_loading": _not_deferred,
}
