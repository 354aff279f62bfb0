"""Files that change in all the ways in which editors and scripts change them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from watchdog.events import FileSystemEvent

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

    play(house, story)


def test_a_machine_without_watches_to_spare_is_told_what_to_raise(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(watcher: Watcher, calls: list[str]) -> None:
        def full(self: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as without:
            without.setattr("splitwgd.watcher.Observer.start", full, raising=True)
            with pytest.raises(MachineError, match="cannot watch .*No space left.*raise fs.inotify.max_user_watches"):
                watcher.watch([str(house / "elsewhere/x")])
        watcher.watch(files(house))
        assert watcher._observer is not None
        rename_over(house / "etc/domains.toml")
        await eventually(lambda: calls)

    play(house, story)
