"""How a command ends that could not do its work."""

from __future__ import annotations

import pytest

from splitwgd.errors import ConfigError, MachineError, Problem
from splitwgd.outcome import plain_errors


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (MachineError("one\ntwo"), 1, "splitwg: one\nsplitwg: two\n"),
        (ConfigError([Problem("f", "is bad", "mend it")]), 2, "splitwg: f: is bad; mend it\n"),
    ],
)
def test_an_error_is_a_sentence_and_a_status(
    error: Exception, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @plain_errors
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        command()
    assert (ended.value.code, capsys.readouterr().err) == (status, said)
