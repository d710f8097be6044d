"""The command line of `scripts/soak`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import uvloop

from scripts.lib.soak.faults import DAEMON_FAULT, FAULTS, Fault
from scripts.lib.soak.loads import PROFILES, Profile
from scripts.lib.soak.router import Router, stamp
from scripts.lib.soak.service_manager import Service
from scripts.lib.soak.stage import PASSWORD, Stage, server_config
from scripts.lib.soak.verdict import Verdict
from tests.support import processes
from tests.support.nats import NatsServer
from tests.support.operator_mode import write_secret

_STATUS_EVERY = 5.0
_STOP_LIMIT = 40.0


class Soak:
    """One run."""

    def __init__(self, asked: argparse.Namespace, directory: Path, runtime: Path) -> None:
        self._asked = asked
        self._directory, self._runtime = directory, runtime
        self._faults: list[Fault] = [
            fault
            for fault in (*FAULTS, *((DAEMON_FAULT,) if asked.daemon_kills else ()))
            if re.search(asked.faults, fault.name)
        ]
        self._profiles = [profile for profile in PROFILES if re.search(asked.loads, profile.name)]
        self._acting: set[asyncio.Task[None]] = set()
        self._profile = ""
        self._until = math.inf
        self.errors: list[str] = []

    async def run(self) -> bool:
        """Whether all was well."""
        asked = self._asked
        running: asyncio.Task[bool] | None = asyncio.current_task()
        assert running is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._enough, running)
        service = Service(self._directory, self._runtime)
        verdict = Verdict(service.log_file)
        write_secret(service.secret, PASSWORD)
        async with NatsServer(self._directory, config=server_config()) as server:
            url = server.url.replace("nats://", f"nats://router:{PASSWORD}@")
            router = Router(url, service.record, verdict.judge)
            stage = Stage(service, server, router, random.Random(f"{asked.seed} faults"), server.port)
            verdict.stage = stage
            stage.write_good()
            try:
                await router.start()
                await service.start()
                await self._storm(stage, verdict)
                await self._end(stage)
            except Exception:
                self.errors.append(traceback.format_exc())
            finally:
                left = service.all_processes()
                service.kill_all()
                await router.close()
                service.store.close()
            verdict.read_log()
        if left:
            self.errors.append(f"processes left behind: {left}")
        self.errors += router.strange[:10]
        print()
        for line in verdict.report():
            print(line)
        for error in self.errors:
            print(f"!  {error}")
        return not verdict.failed and not self.errors

    def _enough(self, running: asyncio.Task[bool]) -> None:
        """The first signal ends it in order, the second at once."""
        if not self._until:
            running.cancel()
        self._until = 0.0

    async def _storm(self, stage: Stage, verdict: Verdict) -> None:
        if self._until:
            self._until = time.monotonic() + self._asked.minutes * 60
        tasks = [asyncio.create_task(self._load(stage)), asyncio.create_task(self._harm(stage))]
        status = asyncio.create_task(self._tell(stage, verdict))
        try:
            await asyncio.gather(*tasks)
            if self._acting:
                await asyncio.wait(self._acting, timeout=60)
            await stage.router.settle()
            await asyncio.sleep(3)  # for second answers and second runs
        finally:
            for task in (*tasks, status):
                task.cancel()
            await asyncio.gather(*tasks, status, return_exceptions=True)
        verdict.read_log()

    async def _load(self, stage: Stage) -> None:
        rng = random.Random(f"{self._asked.seed} load")
        while time.monotonic() < self._until:
            profile: Profile = rng.choice(self._profiles)
            self._profile = profile.name
            await profile.run(stage.router, rng, min(time.monotonic() + rng.uniform(8, 20), self._until))

    async def _harm(self, stage: Stage) -> None:
        if not self._faults:
            return
        weights = [fault.weight for fault in self._faults]
        while time.monotonic() < self._until:
            await asyncio.sleep(stage.rng.expovariate(1 / self._asked.pause))
            fault = stage.rng.choices(self._faults, weights)[0]
            task = asyncio.create_task(self._act(fault, stage))
            self._acting.add(task)
            task.add_done_callback(self._acting.discard)
            if stage.service.ended is not None and not stage.host_lock.locked():
                raise RuntimeError(f"the host ended by itself with status {stage.service.ended}")

    async def _act(self, fault: Fault, stage: Stage) -> None:
        try:
            await fault.act(stage)
        except Exception:
            self.errors.append(f"{fault.name} at {stamp(time.time())}: {traceback.format_exc()}")

    async def _tell(self, stage: Stage, verdict: Verdict) -> None:
        began, seen, sent = time.monotonic(), 0, 0
        told: set[str] = set()
        while True:
            await asyncio.sleep(_STATUS_EVERY)
            verdict.read_log()
            router = stage.router
            new = [event.text.partition(" (")[0] for event in stage.events[seen:]]
            seen = len(stage.events)
            rate, sent = (router.sent - sent) / _STATUS_EVERY, router.sent
            bad = sum(finding.count for finding in verdict.findings if finding.fatal)
            others = sum(router.answers.values()) - router.answers["ok"]
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(
                f"{time.monotonic() - began:6.0f} s  {self._profile:<14} {rate:6.0f}/s  {router.sent:>9,} sent  "
                f"{router.answers['ok']:>9,} ok  {others:>7,} else  {router.outstanding:>5,} open  "
                f"{bad:>3} bad  lag {router.lag * 1000:4.0f} ms  {memory} MB  {', '.join(new)}",
                flush=True,
            )
            for finding in verdict.findings:
                fresh = [one for one in finding.examples if one.id not in told] if finding.fatal else []
                told.update(one.id for one in fresh)
                for one in fresh:
                    print(f"!  {finding.title}: {one}", flush=True)

    async def _end(self, stage: Stage) -> None:
        service = stage.service
        service.send(signal.SIGTERM)
        status = await service.wait(_STOP_LIMIT)
        if status != 0:
            self.errors.append(f"the host ended with {status} on SIGTERM")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while left := service.all_processes():
                    await processes.gone(left[0].pid)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="of faults and loads; default: the time")
    parser.add_argument("--pause", type=float, default=1.5, help="mean seconds between faults")
    parser.add_argument("--daemon-kills", action="store_true", help="kill -9 of the whole daemon as well")
    parser.add_argument("--faults", default="", metavar="REGEX", help="only faults whose name has it")
    parser.add_argument("--loads", default="", metavar="REGEX", help="only loads whose name has it")
    asked = parser.parse_args()
    if asked.seed is None:
        asked.seed = int(time.time())
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="ajhost-soak-"))
    runtime = Path(tempfile.mkdtemp(prefix="ajhost-soak-", dir=shared))
    print(f"seed {asked.seed}, {asked.minutes:g} minutes; files in {directory}", flush=True)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            well = runner.run(Soak(asked, directory, runtime).run())
    except asyncio.CancelledError:
        sys.exit(f"seed {asked.seed}: stopped without a verdict; the log is {directory}/host.log")
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
    print(f"seed {asked.seed}: {'well' if well else f'FAILED; the log is {directory}/host.log'}")
    if well:
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
