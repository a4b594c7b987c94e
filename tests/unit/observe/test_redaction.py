"""What is hidden in log lines."""

from __future__ import annotations

from kimi_gateway.observe import Redactor


def test_a_secret_may_be_learned_while_another_thread_searches_a_text() -> None:
    redact = Redactor()
    redact.learn(["tok-first-1", "tok-first-2"])

    class Text(str):
        """While it is searched for one secret, another one is learned."""

        __slots__ = ()

        def __contains__(self, secret: object) -> bool:
            redact.learn([f"{secret}, learned"])
            return False

    assert not redact.finds(Text("words"))
    assert redact.finds("tok-first-1, learned")
