"""aider, which edits files by the text of the answer."""

from __future__ import annotations

from programs.stage import WRONG, Stage
from upstream import Kimi

EDIT = """I add it.

hello.py
```
<<<<<<< SEARCH
=======
print("from Kimi")
>>>>>>> REPLACE
```
"""


def aider(stage: Stage, key: str) -> tuple[int, str]:
    done = stage.run(
        stage.installed / "aider", "--model", "openai/kimi-k3", "--message", "Write hello.py",
        "--yes-always", "--no-check-update", "--no-analytics", "--no-show-model-warnings",
        "--no-git", "--edit-format", "diff", "hello.py",
        OPENAI_API_BASE=f"{stage.url}/v1", OPENAI_API_KEY=key, LITELLM_LOCAL_MODEL_COST_MAP="True",
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_it_edits_a_file_as_the_streamed_answer_says(stage: Stage) -> None:
    stage.upstream.always(Kimi(text=EDIT))
    code, output = aider(stage, stage.key)
    assert code == 0, output
    assert (stage.work / "hello.py").read_text() == 'print("from Kimi")\n', output
    assert stage.asked[0].body["stream"]
    assert stage.paid == len(stage.asked)


def test_a_wrong_key_is_shown(stage: Stage) -> None:
    _, output = aider(stage, WRONG)
    assert "Invalid API key" in output
    assert not stage.asked
