"""The one thread on which the blocking hands on the kernel live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from splitwgd.errors import KernelError
from splitwgd.kernel import Kernel
from splitwgd.owner import Owner

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Runs steps of the kernel's, one at a time. owner: of the nft table; it is closed with the worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner) -> None:
        self.loop = loop
        self.owner = owner
        self.kernel: Kernel | None = None  # from the first step on
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kernel")

    async def run(self, step: Callable[Concatenate[Kernel, P], T], *arguments: P.args, **options: P.kwargs) -> T:
        """One step's result, or what it raises; KernelError, too, where this process lacks descriptors or memory."""

        def work() -> T:
            try:
                if self.kernel is None:
                    self.kernel = Kernel(self.owner)
                return step(self.kernel, *arguments, **options)
            except OSError as error:
                raise KernelError(f"the kernel cannot be asked now: {error.strerror or error}") from error

        return await self.loop.run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Lets go of the hands; the kernel stays as it is."""
        if self.kernel is not None:
            await self.run(Kernel.close)
        self._thread.shutdown()
        self.owner.close()
