"""Many questions to groups of servers on loopback: who is asked first, who is dead, who asks us, and how it ends.

What comes back to one question: tests/test_flight. Marks: tests/kernel/test_upstream_marks.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from dnslib import DNSRecord

from splitwgd import upstream as module
from splitwgd.errors import UpstreamError
from splitwgd.health import SILENCES
from splitwgd.message import A, question_for, read_query
from splitwgd.names import Name, parse_name
from splitwgd.reply import Reply
from splitwgd.upstream import Upstreams
from splitwgd.zones import Group
from tests.datagrams import (
    QUERY,
    Fake,
    Outcome,
    Peer,
    addresses,
    answer,
    ask,
    group_of,
    leave_unmarked,
    lose_patience,
    play,
    says,
    send,
)
from tests.streams import TLS, Host, echo
from tests.worlds import eventually, free_port, ip, server

CLOSED = server("127.0.0.7", 9)


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_unmarked(monkeypatch)
    lose_patience(monkeypatch)


# -- the next server


def words(upstreams: Upstreams) -> dict[str, dict[str, str]]:
    """How the servers do, without their times."""
    return {group: {server: how["is"] for server, how in found.items()} for group, found in upstreams.state().items()}


def test_when_the_first_is_silent_the_second_is_asked() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as silent, Fake(says()) as second:
            assert addresses(await ask(upstreams, silent, second)) == ["192.0.2.1"]
            assert (len(silent.asked), len(second.asked)) == (1, 1)

    play(story)


def test_the_first_may_still_answer_while_the_second_is_asked() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as slow:

            def now(fake: Fake, data: bytes, client: Peer) -> None:
                says(address="192.0.2.77")(slow, *slow.asked[0])

            async with Fake(now) as second:
                assert addresses(await ask(upstreams, slow, second)) == ["192.0.2.77"]

    play(story)


def test_the_first_may_still_answer_when_nobody_is_left_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    lose_patience(monkeypatch, 0.02, 9)

    async def story(upstreams: Upstreams) -> None:
        async with Fake() as slow:
            outcomes = send(upstreams, group_of(slow))
            await eventually(lambda: len(slow.asked) == 3)
            await asyncio.sleep(0.05)
            says(address="192.0.2.77")(slow, *slow.asked[0])
            await eventually(lambda: outcomes)
            assert addresses(outcomes[0]) == ["192.0.2.77"]

    play(story)


def test_the_whole_question_ends_in_time_however_many_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    lose_patience(monkeypatch, 0.1, 0.25)

    async def story(upstreams: Upstreams) -> None:
        async with Fake(address="0.0.0.0") as silent:
            servers = [replace(silent.server, address=ip(f"127.0.0.{number}")) for number in range(1, 50)]
            assert isinstance(await ask(upstreams, *servers), UpstreamError)
            assert 1 <= len(silent.asked) <= 3

    play(story)


def test_the_second_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lose_patience(monkeypatch, 0.4, 9)

    def after(seconds: float, fake: Fake, message: bytes, client: Peer) -> None:
        asyncio.get_running_loop().call_later(seconds, fake.send, message, client)

    def refuses(fake: Fake, data: bytes, client: Peer) -> None:
        after(0.3, fake, answer(data, rcode=5), client)

    def answers(fake: Fake, data: bytes, client: Peer) -> None:
        after(0.2, fake, answer(data), client)

    async def story(upstreams: Upstreams) -> None:
        async with Fake(refuses) as first, Fake(answers) as second:
            assert addresses(await ask(upstreams, first, second)) == ["192.0.2.1"]
            assert len(second.asked) == 1

    play(story)


# -- the fastest healthy one first


def test_who_answers_while_the_first_is_silent_is_asked_first_from_then_on() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as silent, Fake(says()) as second:
            for _ in range(4):
                assert addresses(await ask(upstreams, silent, second)) == ["192.0.2.1"]
            assert len(silent.asked) == 1
            assert len(second.asked) == 4

    play(story)


def test_a_dead_server_is_not_waited_for_and_told_of() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as silent:
            group = group_of(silent)
            outcomes = send(upstreams, group)
            await eventually(lambda: outcomes)
            assert len(silent.asked) >= SILENCES
            assert words(upstreams) == {"default": {str(silent.server): "silent"}}

    play(story)


def test_a_dead_server_is_asked_by_ourselves_and_its_return_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROBE_EVERY", 0.02)
    monkeypatch.setattr("splitwgd.health.PROBE_WANTED", 0.05)

    async def story(upstreams: Upstreams) -> None:
        back: list[Group] = []
        upstreams.on_recovery = back.append
        address = server("127.0.0.1", free_port())
        async with Fake(says()) as second:
            group = group_of(address, second)
            outcomes = send(upstreams, group)
            await eventually(lambda: outcomes)
            assert words(upstreams)["default"] == {str(address): "silent", str(second.server): "well"}
            assert back == []
            async with Fake(says(), port=address.port) as revived:
                await eventually(lambda: back)
                assert back == [group]
                assert words(upstreams)["default"][str(address)] == "well"
                asked = DNSRecord.parse(revived.asked[0][0])
                assert (str(asked.q.qname), asked.q.qtype) == (".", 2)  # which every server knows, and tells nobody
                await eventually(lambda: not upstreams.under_way())

    play(story)


def test_one_name_without_an_answer_does_not_make_a_server_dead_that_has_answers_for_others() -> None:
    async def story(upstreams: Upstreams) -> None:
        def all_but_one(fake: Fake, data: bytes, client: Peer) -> None:
            if b"broken" not in data:
                fake.send(answer(data), client)

        async with Fake(all_but_one) as fake:
            broken = send(upstreams, group_of(fake), question_for(parse_name("broken.example"), A))
            while not broken:
                assert addresses(await ask(upstreams, fake)) == ["192.0.2.1"]
                await asyncio.sleep(0.02)
            assert words(upstreams) == {"default": {str(fake.server): "well"}}

    play(story)


def test_on_an_idle_machine_nobody_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROBE_EVERY", 0.02)
    monkeypatch.setattr(module, "_PROBE_WHILE_USED", 0.2)
    monkeypatch.setattr("splitwgd.health.PROBE_IDLE", 0.03)

    async def story(upstreams: Upstreams) -> None:
        def slowly(fake: Fake, data: bytes, client: Peer) -> None:
            asyncio.get_running_loop().call_later(0.03, fake.send, answer(data), client)

        async with Fake(says()) as first, Fake(slowly) as second:
            await ask(upstreams, first, second)
            await eventually(lambda: len(second.asked) > 1)  # how fast it is is known all the time
            assert len(first.asked) == 1
            await eventually(lambda: upstreams._probe is None)
            before = len(second.asked)
            await asyncio.sleep(0.1)
            assert len(second.asked) == before
            await ask(upstreams, first, second)
            await eventually(lambda: len(second.asked) > before)
            await eventually(lambda: not upstreams.under_way())

    play(story)


# -- servers that ask us


def name_in(question: bytes) -> Name:
    return read_query(question).name


def test_a_server_that_asks_us_is_found_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async def story(upstreams: Upstreams) -> None:
        def asks_us(fake: Fake, data: bytes, client: Peer) -> None:
            if upstreams.came_back(name_in(data)):
                fake.send(answer(data, rcode=5), client)
            else:
                fake.send(answer(data, "203.0.113.66"), client)

        async with Fake(asks_us) as loop, Fake(says()) as honest, Fake(says()) as another:
            group, forward = group_of(loop, honest), group_of(another, name="forward 'x'")
            upstreams.look_for_loops([group, forward])
            await eventually(lambda: not upstreams.under_way())
            names = {str(DNSRecord.parse(data).q.qname) for each in (loop, honest, another) for data, _ in each.asked}
            assert len(names) == 3 and all(name.endswith(".splitwg-probe.example.") for name in names)
            assert words(upstreams) == {
                "default": {str(loop.server): "asks us", str(honest.server): "well"},
                "forward 'x'": {str(another.server): "well"},
            }
            before = len(loop.asked)
            for _ in range(3):
                outcomes = send(upstreams, group)
                await eventually(lambda: outcomes)  # noqa: B023
                assert addresses(outcomes[0]) == ["192.0.2.1"]
            assert len(loop.asked) == before

    play(story)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "asks splitwgd in its turn" in message


def test_a_group_whose_servers_all_ask_us_has_none() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as fake:
            group = group_of(fake)
            upstreams.look_for_loops([group])
            await eventually(lambda: fake.asked)
            assert upstreams.came_back(name_in(fake.asked[0][0]))
            await eventually(lambda: not upstreams.under_way())
            outcomes = send(upstreams, group)
            await eventually(lambda: outcomes)
            assert str(outcomes[0]) == "default: no server"

    play(story)


def test_other_names_do_not_come_back() -> None:
    async def story(upstreams: Upstreams) -> None:
        assert not upstreams.came_back(QUERY.name)
        upstreams.look_for_loops([group_of(CLOSED)])
        await eventually(lambda: not upstreams.under_way())
        assert not upstreams.came_back(QUERY.name)
        assert not upstreams.came_back(parse_name("0123456789abcdef.splitwg-probe.example"))

    play(story)


# -- another network, another configuration


def test_on_another_network_nothing_that_was_learned_is_believed() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as silent, Fake(says()) as second:
            for _ in range(2):
                await ask(upstreams, silent, second)
            assert len(silent.asked) == 1
            upstreams.refresh()
            await ask(upstreams, silent, second)
            assert len(silent.asked) == 2
            ports = [client for _, client in second.asked]
            assert len(set(ports)) == len(ports)

    play(story)


def test_what_is_under_way_while_the_network_changes_goes_on() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as fake, Host(TLS, lambda asked: None) as host:
            outcomes = send(upstreams, group_of(fake))
            encrypted = send(upstreams, group_of(host.server, name="tls"))
            await eventually(lambda: fake.asked and host.asked)
            host.play = echo
            upstreams.refresh()
            says()(fake, *fake.asked[0])
            await eventually(lambda: outcomes and encrypted)
            assert addresses(outcomes[0]) == ["192.0.2.1"]
            assert isinstance(encrypted[0], Reply)
            assert len(upstreams.ports) == 0  # its port is of the old network
            upstreams.channels.close()

    play(story)


def test_what_another_configuration_does_not_name_is_forgotten() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says()) as fake, Host(TLS, echo) as host, Host(TLS, echo) as stays:
            groups = [group_of(fake), group_of(host.server, name="tls"), group_of(stays.server, name="stays")]
            for group in groups:
                outcomes = send(upstreams, group)
                await eventually(lambda: outcomes)  # noqa: B023
            assert set(upstreams.state()) == {"default", "tls", "stays"}
            upstreams.keep_only([groups[2]])
            assert set(upstreams.state()) == {"stays"}
            await eventually(lambda: not host.alive)
            assert stays.alive
            upstreams.channels.close()

    play(story)


# -- limits and ends


def test_more_than_the_limit_is_refused_at_once() -> None:
    async def story(upstreams: Upstreams) -> None:
        upstreams.limit = 2
        async with Fake() as silent:
            group = group_of(silent)
            under_way = [send(upstreams, group) for _ in range(2)]
            outcomes = send(upstreams, group)
            await eventually(lambda: outcomes)
            assert str(outcomes[0]) == "default: 2 questions are under way already"
            await eventually(lambda: all(under_way))
            outcomes = send(upstreams, group)
            await eventually(lambda: len(silent.asked) > 6)
            await eventually(lambda: outcomes)

    play(story)


def test_after_close_nobody_is_answered() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as fake, Host(TLS, lambda asked: None) as host:
            outcomes = [send(upstreams, group_of(fake)), send(upstreams, group_of(host.server, name="tls"))]
            await eventually(lambda: fake.asked and host.asked)
            upstreams.close()
            says()(fake, *fake.asked[0])
            host.asked[0].reply()
            await asyncio.sleep(0.05)
        assert outcomes == [[], []]

    play(story, closes=True)


def test_many_questions_at_once_each_get_their_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    lose_patience(monkeypatch, 8, 9)

    async def story(upstreams: Upstreams) -> None:
        def own(fake: Fake, data: bytes, client: Peer) -> None:
            label = str(DNSRecord.parse(data).q.qname).split(".")[0]
            fake.send(answer(data, f"192.0.2.{label[1:]}"), client)

        async with Fake(own) as fake:
            group = group_of(fake)
            outcomes: dict[int, Outcome] = {}
            for number in range(200):
                query = question_for(parse_name(f"n{number}.example.com"), A)
                upstreams.ask(query, group, lambda outcome, n=number: outcomes.__setitem__(n, outcome))  # type: ignore[misc]
            await eventually(lambda: len(outcomes) == 200)
            assert all(addresses(outcomes[number]) == [f"192.0.2.{number}"] for number in range(200))
            assert len({client for _, client in fake.asked}) == 200

    play(story)


def test_it_is_told_how_long_a_server_takes() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says()) as quick, Fake(says()) as spare:
            await ask(upstreams, quick, spare)
            (found,) = upstreams.state().values()
            assert 0 < found[str(quick.server)]["ms"] < 1000 and found[str(spare.server)]["ms"] is None

    play(story)
