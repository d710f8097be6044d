"""What binding a handler's parameters imports."""

from __future__ import annotations

import subprocess
import sys

import ajhost


def test_pydantic_is_not_imported_for_handlers_of_the_task_alone() -> None:
    code = (
        "import sys\nfrom ajhost.roles.handlers import callable_of\n"
        "def bare(task): ...\ndef raw(image: bytes, task): ...\n"
        "callable_of('m:f', bare), callable_of('m:f', raw)\n"
        "assert not {'pydantic', 'pydantic_core'} & set(sys.modules)\n"
        "def typed(what: dict): ...\ncallable_of('m:f', typed)\nassert 'pydantic' in sys.modules\n"
    )
    folder = ajhost.__path__[0].removesuffix("/ajhost")
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": folder}, timeout=30)
