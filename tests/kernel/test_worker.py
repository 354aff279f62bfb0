"""The worker: its steps share a thread and a kernel, and what they raise reaches who asked for them."""

from __future__ import annotations

import asyncio
import os
import resource
import threading

import pytest

from splitwgd.errors import KernelError
from splitwgd.kernel import Kernel
from splitwgd.owner import Owner
from splitwgd.ruleset import TABLE
from splitwgd.worker import Worker

from .spaces import Space


def test_all_steps_have_one_thread_and_one_kernel(space: Space) -> None:
    def where(kernel: Kernel, word: str) -> tuple[int, int, str]:
        return threading.get_ident(), id(kernel), word

    async def story() -> None:
        worker = Worker(asyncio.get_running_loop(), Owner(TABLE))
        assert worker.kernel is None
        steps = await asyncio.gather(*(worker.run(where, word) for word in "abc"))
        threads, kernels, words = (set(each) for each in zip(*steps, strict=True))
        assert (len(threads), kernels, words) == (1, {id(worker.kernel)}, {"a", "b", "c"})
        assert threading.get_ident() not in threads
        await worker.close()

    asyncio.run(story())


def test_what_a_step_raises_is_raised_and_the_next_one_runs(space: Space) -> None:
    def refused(kernel: Kernel) -> None:
        raise KernelError("no")

    async def story() -> None:
        worker = Worker(asyncio.get_running_loop(), Owner(TABLE))
        with pytest.raises(KernelError, match="no"):
            await worker.run(refused)
        assert await worker.run(lambda kernel: 7) == 7
        await worker.close()

    asyncio.run(story())


def test_where_this_process_lacks_descriptors_it_is_an_error_of_ours_that_can_be_tried_again(space: Space) -> None:
    async def story() -> None:
        worker = Worker(asyncio.get_running_loop(), Owner(TABLE))
        await worker.run(Kernel.surroundings)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(KernelError, match="cannot be asked now: Too many open files"):
                await worker.run(lambda kernel: os.close(os.open("/dev/null", os.O_RDONLY)))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await worker.run(Kernel.surroundings)
        await worker.close()

    asyncio.run(story())


def test_without_a_step_there_is_nothing_to_let_go_of(space: Space) -> None:
    async def story() -> None:
        worker = Worker(asyncio.get_running_loop(), Owner(TABLE))
        await worker.close()
        assert worker.kernel is None

    asyncio.run(story())
