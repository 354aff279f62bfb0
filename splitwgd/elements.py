"""The hand on the elements of nf_tables' sets: writes and acknowledges them as netlink messages of our own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from splitwgd.batch import make_batch
from splitwgd.objects import Element
from splitwgd.owner import Owner

_IN_ONE_BATCH = 1024


class Elements:
    """Learned addresses of one table."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    @property
    def busy(self) -> bool:
        """Whether a write would wait, perhaps for milliseconds, for another thread's."""
        return self._owner.busy

    def write(
        self, new: Sequence[Element], renewed: Sequence[Element] = (), gone: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        """One transaction, acknowledged when this returns: `new` ones must be absent, `gone` ones be there.

        Raises KernelError or MachineError, and then nothing has changed.
        """
        if new or renewed or gone:
            self._owner.send(*make_batch(self._owner.table, gone, new, renewed))

    def put(self, elements: Sequence[Element]) -> None:
        """The same for any number, present or absent, in several transactions if need be."""
        for start in range(0, len(elements), _IN_ONE_BATCH):
            self.write((), elements[start : start + _IN_ONE_BATCH])
