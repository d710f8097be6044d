"""Tests of handlers: makes a task by hand, runs a handler as a worker does, starts a whole host in a pytest fixture.

    from ajhost.testing import make_task, run, run_sync

    async def test_a_mail_is_sent():
        outcome = await run(send, {"to": "ada@example.net"})
        assert outcome.json() == {"sent": "ada@example.net"}

    def test_no_recipient_ends_the_task():
        outcome = run_sync(send, {})
        assert outcome.terminated
        assert outcome.error == "invalid payload: mail.to: field required"

`run` binds, starts, limits and encodes with the worker's own code. It needs no server and no daemon: orjson and
pydantic are enough to import this package. The pytest fixture `ajhost_host` (`ajhost.testing.pytest_plugin`) serves
handlers with a real host on a real nats-server.
"""

from ajhost.testing.run_handler import Outcome, lifespan, make_task, run, run_sync

__all__ = ["Outcome", "lifespan", "make_task", "run", "run_sync"]
