"""Gives each worker random numbers of its own: a fork copies the state of every generator.

Python seeds its global generator in a forked child by itself. Generators that an import has made without a seed
(`random.Random()`, `numpy.random.default_rng()`) get a new one here; those with a seed go on as their maker wants it.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import random
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

_Random = random.Random
_BITS_OF_CHANCE = 100
"""numpy takes 128 bits of the system where there is no seed. Nobody's seed has so many."""


class RandomGenerators:
    """The generators that imports have made without a seed."""

    def __init__(self) -> None:
        self._reseed: list[Callable[[], object]] = []

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Finds those that are made meanwhile."""
        unseeded: dict[int, weakref.ref[random.Random]] = {}
        real = _Random.seed

        def seed(self: random.Random, a: Any = None, *args: Any, **kwargs: Any) -> None:
            real(self, a, *args, **kwargs)
            unseeded.pop(id(self), None)
            if a is None:
                unseeded[id(self)] = weakref.ref(self)

        _Random.seed = seed  # type: ignore[method-assign]
        try:
            yield
        finally:
            _Random.seed = real  # type: ignore[method-assign]
            self._reseed += [found.seed for made in unseeded.values() if (found := made()) is not None]
            self._reseed += _of_numpy()

    def reseed(self) -> None:
        """Gives each of them a new seed. Call it in a worker."""
        for reseed in self._reseed:
            with contextlib.suppress(Exception):
                reseed()


def _of_numpy() -> Iterator[Callable[[], object]]:
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is None:
        return
    yield numpy_random.seed  # the global one
    kind = getattr(numpy_random, "BitGenerator", ())
    for found in gc.get_objects():
        if issubclass(type(found), kind):
            entropy = getattr(getattr(found, "seed_seq", None), "entropy", None)
            if isinstance(entropy, int) and entropy.bit_length() > _BITS_OF_CHANCE:
                yield functools.partial(_begin_anew, found)


def _begin_anew(generator: Any) -> None:
    generator.state = type(generator)().state
