"""An interrupt in a call to a database arrives after it, and leaves no lock behind."""

import os
import shutil

import interrupted_call
import pytest


@pytest.mark.parametrize("case", [case.__name__ for case in interrupted_call.CASES])
def test_an_interrupted_write_is_complete_and_its_lock_is_free(
    case, tmp_path, empty_store, fork_server
):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    result = fork_server.run(
        case, script=interrupted_call.__file__, cwd=tmp_path, env=dict(os.environ)
    )
    assert result.stdout == "1 row, the lock is free, interrupted by KeyboardInterrupt\n", result
