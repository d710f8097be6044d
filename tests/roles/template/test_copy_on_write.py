"""What a worker allocates lies apart from what it shares with its template."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import gc, json, os
from ajhost.roles.template import copy_on_write

held = [[bytes(size) for _ in range(2_000)] for size in (60, 200, 450)]
pools = {id(block) >> 14 for blocks in held for block in blocks}
for blocks in held:
    blocks[:] = [block for number, block in enumerate(blocks) if number % 3 or id(block) % (16 << 10) < 64]
copy_on_write.prepare()
read, write = os.pipe()
if os.fork() == 0:
    new = [bytes(size) for size in (60, 200, 450) for _ in range(30)]
    os.write(write, json.dumps([sum(id(block) >> 14 in pools for block in new), gc.get_freeze_count()]).encode())
    os._exit(0)
os.wait()
print(os.read(read, 4096).decode())
"""


def test_new_objects_of_a_worker_fill_no_holes_between_those_of_its_template() -> None:
    shown = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    in_holes, frozen = json.loads(shown.stdout)
    assert in_holes == 0
    assert frozen > 1_000
