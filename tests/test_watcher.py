"""Files that change in all the ways in which editors and scripts change them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from watchdog.events import FileDeletedEvent, FileSystemEvent
from watchdog.observers.api import BaseObserver, ObservedWatch

from splitwgd import watcher as watcher_module
from splitwgd.config import load_config
from splitwgd.errors import MachineError
from splitwgd.store import Disk
from splitwgd.watcher import Watcher
from tests.worlds import WG, eventually, wait_until


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with a list, and a directory that has nothing to do with it."""
    monkeypatch.setattr(watcher_module, "QUIET", 0.05)
    (tmp_path / "etc/lists").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "etc/domains.toml").write_text(
        '[dns]\ntunneled = ["10.1.0.1"]\ndefault = ["9.9.9.9"]\n[tunneled]\nlists = ["lists/*.txt"]\n'
        '[wireguard]\nconfig = "wg0.conf"\n'
    )
    (tmp_path / "etc/lists/one.txt").write_text("example.com\n")
    (tmp_path / "etc/wg0.conf").write_text(WG)
    return tmp_path


def play(house: Path, story: Callable[[Watcher, list[str]], Awaitable[None]]) -> None:
    async def run() -> None:
        calls: list[str] = []
        watcher = Watcher(asyncio.get_running_loop(), lambda: calls.append("changed"))
        watcher.watch(files(house))
        try:
            await story(watcher, calls)
        finally:
            watcher.close()

    asyncio.run(run())


def files(house: Path) -> tuple[str, ...]:
    return load_config(str(house / "etc/domains.toml"), Disk()).files


def rename_over(path: Path) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text("# changed\n")
    os.replace(new, path)


def vim(path: Path) -> None:
    path.rename(path.with_name(path.name + "~"))
    path.write_text("# changed\n")
    path.with_name(path.name + "~").unlink()


CHANGES: dict[str, Callable[[Path], object]] = {
    "written in place": lambda etc: (etc / "domains.toml").write_text("# changed\n"),
    "renamed over": lambda etc: rename_over(etc / "domains.toml"),
    "written as vim does": lambda etc: vim(etc / "domains.toml"),
    "appended to": lambda etc: (etc / "domains.toml").open("a").close() or os.utime(etc / "domains.toml"),  # type: ignore[func-returns-value]
    "a list changed": lambda etc: (etc / "lists/one.txt").write_text("example.net\n"),
    "a list renamed over": lambda etc: rename_over(etc / "lists/one.txt"),
    "a list added": lambda etc: (etc / "lists/two.txt").write_text("example.net\n"),
    "a list removed": lambda etc: (etc / "lists/one.txt").unlink(),
    "another wg-quick file": lambda etc: rename_over(etc / "wg0.conf"),
    "removed": lambda etc: (etc / "domains.toml").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_calls_back_once(house: Path, change: str) -> None:
    async def story(watcher: Watcher, calls: list[str]) -> None:
        CHANGES[change](house / "etc")
        await eventually(lambda: calls)
        assert calls == ["changed"]

    play(house, story)


def test_what_is_written_in_pieces_is_one_change_once_it_is_whole(house: Path) -> None:
    async def story(watcher: Watcher, calls: list[str]) -> None:
        seen: list[str] = []
        watcher.changed = lambda: seen.append((house / "etc/domains.toml").read_text())
        with (house / "etc/domains.toml").open("w") as file:
            for number in range(12):
                file.write(f"# {number}\n")
                file.flush()
                await asyncio.sleep(0.01)
        await eventually(lambda: seen)
        assert len(seen) == 1 and seen[0].endswith("# 11\n")

    play(house, story)


def test_two_changes_with_a_pause_between_are_two(house: Path) -> None:
    async def story(watcher: Watcher, calls: list[str]) -> None:
        for count in (1, 2, 3):
            rename_over(house / "etc/domains.toml")
            await eventually(lambda count=count: len(calls) == count)  # type: ignore[misc]

    play(house, story)


def test_reading_is_no_change_and_neither_is_what_happens_elsewhere(house: Path) -> None:
    class Ear(Watcher):
        """Remembers which events would stir it."""

        def on_any_event(self, event: FileSystemEvent) -> None:
            self.loop = SimpleNamespace(call_soon_threadsafe=lambda _: heard.append(str(event.src_path)))  # type: ignore[assignment]
            super().on_any_event(event)

    heard: list[str] = []
    ear = Ear(asyncio.new_event_loop(), lambda: None)
    ear.loop.close()
    ear.watch(files(house))
    try:
        assert (house / "etc/domains.toml").read_text() and list((house / "etc").iterdir())
        assert (house / "etc/lists/one.txt").read_bytes()
        (house / "elsewhere/domains.toml").write_text("# not ours\n")
        (house / "domains.toml").write_text("# not ours\n")
        (house / "etc/lists/two.txt").touch()  # comes after all these
        wait_until(lambda: str(house / "etc/lists/two.txt") in heard)
        assert set(heard) <= {str(house / "etc/lists"), str(house / "etc/lists/two.txt")}
    finally:
        ear.close()


def test_a_symlink_that_is_turned_is_a_change_and_its_new_target_is_followed(house: Path) -> None:
    for version in ("one", "two"):
        (house / version).mkdir()
        os.rename(house / "etc/domains.toml", house / "saved") if version == "one" else None
        (house / version / "domains.toml").write_text((house / "saved").read_text())
    (house / "current").symlink_to("one")
    (house / "etc/domains.toml").symlink_to(house / "current/domains.toml")

    async def story(watcher: Watcher, calls: list[str]) -> None:
        (house / "one/domains.toml").write_text((house / "saved").read_text() + "# changed\n")
        await eventually(lambda: len(calls) == 1)
        new = house / "etc/.new"
        new.symlink_to(house / "two/domains.toml")
        os.replace(new, house / "etc/domains.toml")
        await eventually(lambda: len(calls) == 2)
        watcher.watch(files(house))
        (house / "two/domains.toml").write_text((house / "saved").read_text() + "# changed\n")
        await eventually(lambda: len(calls) == 3)

    play(house, story)


def test_a_directory_in_the_middle_of_the_way_that_is_turned_is_a_change(house: Path) -> None:
    """As with Kubernetes' `..data`, and with Nix."""
    for version in ("one", "two"):
        (house / "etc/versions" / version).mkdir(parents=True)
        text = (house / "etc/domains.toml").read_text().replace("wg0.conf", str(house / "etc/wg0.conf"))
        (house / "etc/versions" / version / "domains.toml").write_text(
            text.replace("lists/", str(house / "etc/lists") + "/")
        )
    (house / "etc/..data").symlink_to("versions/one")
    (house / "etc/domains.toml").unlink()
    (house / "etc/domains.toml").symlink_to("..data/domains.toml")

    async def story(watcher: Watcher, calls: list[str]) -> None:
        new = house / "etc/..new"
        new.symlink_to("versions/two")
        os.replace(new, house / "etc/..data")
        await eventually(lambda: calls)

    play(house, story)


def test_the_first_file_of_a_list_directory_is_noticed(house: Path) -> None:
    (house / "etc/lists/one.txt").unlink()

    async def story(watcher: Watcher, calls: list[str]) -> None:
        (house / "etc/lists/first.txt").write_text("example.com\n")
        await eventually(lambda: calls)

    play(house, story)


# -- what is not there yet, and what goes and comes


def put(path: Path, text: str = "x\n") -> None:
    """A file, with the directories that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def put_back(file: Path) -> None:
    """The same directory, new, with this file alone in it."""
    shutil.rmtree(file.parent)
    put(file)


def swap(directory: Path) -> None:
    """Another directory takes the name of this one, with a list of its own in it."""
    put(directory.with_name("new") / "lists/one.txt")
    directory.rename(directory.with_name("old"))
    directory.with_name("new").rename(directory)


async def follows(watcher: Watcher, calls: list[str], *steps: Callable[[], object]) -> None:
    """Each of these is a change, and one only."""
    for step in steps:
        calls.clear()
        step()
        await eventually(lambda: calls)
        await asyncio.sleep(3 * watcher_module.QUIET)
        assert calls == ["changed"]


@pytest.mark.parametrize(
    "watched", ["run/net/dns/resolv.conf", "run/net/dns/*", "run/*/dns/resolv.conf", "run/n[e]t/*/*"]
)
def test_a_file_whose_directories_are_not_there_yet_is_followed(house: Path, watched: str) -> None:
    file = house / "run/net/dns/resolv.conf"

    async def story(watcher: Watcher, calls: list[str]) -> None:
        watcher.watch([str(house / watched)])
        await follows(
            watcher,
            calls,
            (house / "run").mkdir,
            lambda: put(file),
            lambda: rename_over(file),
            lambda: file.write_text("changed\n"),
            file.unlink,
            lambda: put(file),
        )

    play(house, story)


def test_a_directory_that_vanishes_and_comes_back_is_followed(house: Path) -> None:
    async def story(watcher: Watcher, calls: list[str]) -> None:
        lists = house / "etc/lists"
        back = house / "etc/lists/one.txt"
        await follows(watcher, calls, lambda: shutil.rmtree(lists), lambda: put(back), lambda: rename_over(back))
        # Too quick to be seen in between: only the kernel knows that it is another one.
        await follows(watcher, calls, lambda: put_back(back), lambda: rename_over(back))

    play(house, story)


def test_a_directory_in_whose_place_another_is_put_is_followed_with_all_below(house: Path) -> None:
    async def story(watcher: Watcher, calls: list[str]) -> None:
        one = house / "etc/lists/one.txt"
        await follows(watcher, calls, lambda: swap(house / "etc"), lambda: one.write_text("changed\n"))

    play(house, story)


def test_a_symlink_to_a_directory_that_is_not_there_yet_is_followed(house: Path) -> None:
    """As /etc/resolv.conf is one to ../run/..., and /var/run to /run."""
    (house / "var").symlink_to("run")
    (house / "etc/resolv.conf").symlink_to("../var/net/resolv.conf")
    (house / "run").mkdir()

    async def story(watcher: Watcher, calls: list[str]) -> None:
        watcher.watch([str(house / "etc/resolv.conf")])
        file = house / "run/net/resolv.conf"
        await follows(watcher, calls, lambda: put(file), lambda: rename_over(file))

    play(house, story)


def test_symlinks_in_a_circle_and_names_with_stars_are_survived(house: Path) -> None:
    (house / "a").symlink_to("b")
    (house / "b").symlink_to("a")
    (house / "etc/lists/*.txt").touch()
    (house / "etc/lists/[x].txt").touch()

    async def story(watcher: Watcher, calls: list[str]) -> None:
        watcher.watch([*files(house), str(house / "a/x")])
        await follows(watcher, calls, (house / "a").unlink, lambda: (house / "etc/lists/[x].txt").write_text("x\n"))

    play(house, story)


def appear(net: Path) -> None:
    put(net / "dns/resolv.conf")


def vanish(net: Path) -> None:
    shutil.rmtree(net.parent)


@pytest.mark.parametrize("happens", [appear, vanish])
def test_directories_that_come_and_go_while_they_are_looked_at_are_followed(
    house: Path, monkeypatch: pytest.MonkeyPatch, happens: Callable[[Path], None]
) -> None:
    net = house / "run/net"
    net.mkdir(parents=True)
    schedule = BaseObserver.schedule
    later = [happens]

    def meanwhile(self: BaseObserver, handler: Watcher, path: str, event_filter: Any) -> ObservedWatch:
        if path == str(net) and later:
            later.pop()(net)  # after the look at what there is, and before the kernel tells of changes
        return schedule(self, handler, path, event_filter=event_filter)

    async def story(watcher: Watcher, calls: list[str]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(BaseObserver, "schedule", meanwhile)
            watcher.watch([str(net / "dns/resolv.conf")])
        put(net / "dns/resolv.conf", "changed\n")
        await eventually(lambda: calls)

    play(house, story)


UNRELATED = ["etc/hosts.swp", "etc/one.txt", "etc/lists/one.txt~", "etc/lists/.new.txt", "run/utmp", "run/net/pid", "x"]


def test_what_else_happens_in_the_same_directories_wakes_nobody(house: Path) -> None:
    events: list[FileSystemEvent] = []

    class Ear(Watcher):
        """Keeps what the kernel tells."""

        def on_any_event(self, event: FileSystemEvent) -> None:
            events.append(event)
            super().on_any_event(event)

    async def run() -> None:
        stirred: list[str] = []
        ear = Ear(asyncio.get_running_loop(), lambda: None)
        ear._stir = stirred.extend  # type: ignore[method-assign, assignment]
        ear.watch([*files(house), str(house / "run/net/dns/resolv.conf")])
        for name in UNRELATED:
            put(house / name)
            rename_over(house / name)
            (house / name).unlink()
        (house / "run/net/sub/dns").mkdir(parents=True)
        for name in UNRELATED:  # the last that happened to each
            await eventually(lambda path=str(house / name): FileDeletedEvent(path) in events)  # type: ignore[misc]
        assert stirred == []
        events.clear()
        for path in ("etc/domains.toml", "etc/lists/one.txt"):
            (house / path).read_bytes()
        os.listdir(house / "etc/lists")
        rename_over(house / "etc/domains.toml")  # comes after all these
        await eventually(lambda: events)
        assert not [event for event in events if event.event_type in ("opened", "closed", "closed_no_write")]
        ear.close()

    (house / "run/net").mkdir(parents=True)
    asyncio.run(run())


def test_what_goes_on_and_on_is_told_all_the_same(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "PATIENCE", 0.2)

    async def story(watcher: Watcher, calls: list[str]) -> None:
        with (house / "etc/domains.toml").open("a") as file:
            while not calls:
                print("# more", file=file, flush=True)
                await asyncio.sleep(0.01)

    play(house, story)


def test_watching_the_same_again_loses_nothing(house: Path) -> None:
    async def story(watcher: Watcher, calls: list[str]) -> None:
        observer = watcher._observer
        watcher.watch(files(house))
        assert watcher._observer is observer
        watcher.watch([*files(house), str(house / "elsewhere/x")])
        (house / "elsewhere/x").touch()
        await eventually(lambda: calls)

    play(house, story)


def test_directories_that_are_not_there_are_passed_over(house: Path) -> None:
    async def story(watcher: Watcher, calls: list[str]) -> None:
        watcher.watch([*files(house), "/no/such/directory/x"])
        rename_over(house / "etc/domains.toml")
        await eventually(lambda: calls)

    play(house, story)


def test_after_close_nobody_is_called(house: Path) -> None:
    async def story(watcher: Watcher, calls: list[str]) -> None:
        rename_over(house / "etc/domains.toml")
        await eventually(lambda: watcher._timer)
        watcher.close()
        watcher.close()
        assert watcher._timer is not None and watcher._timer.cancelled()
        watcher._stir([])  # was on its way from the observer's thread
        assert watcher._timer.cancelled()

    play(house, story)


def test_a_machine_without_watches_to_spare_is_told_what_to_raise(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(watcher: Watcher, calls: list[str]) -> None:
        def full(self: object, handler: object, path: str, event_filter: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as without:
            without.setattr("splitwgd.watcher.Observer.schedule", full, raising=True)
            with pytest.raises(MachineError, match="cannot watch .*No space left.*raise fs.inotify.max_user_watches"):
                watcher.watch([str(house / "elsewhere/x")])
        watcher.watch(files(house))
        assert watcher._observer is not None
        rename_over(house / "etc/domains.toml")
        await eventually(lambda: calls)

    play(house, story)
