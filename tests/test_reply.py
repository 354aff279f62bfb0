"""A reply that is given again later: its TTLs, and nothing else, are others."""

from __future__ import annotations

from dnslib import DNSRecord

from splitwgd.answers import read_reply
from splitwgd.message import Body, fit_reply, read_query
from splitwgd.reply import Reply, counted_down, with_ttl
from tests.samples import answer, ask, question

SOA_RECORD = "example.com. 900 IN SOA ns.example.com. me.example.com. 1 2 3 4 300"


def read(zone: str, authority: str) -> Reply:
    query = ask("www.example.com")
    return read_reply(answer(query, zone, authority), query)


def given_to_client(body: Body) -> DNSRecord:
    return DNSRecord.parse(fit_reply(read_query(question("www.example.com")), body, stream=True))


def test_ttls_are_counted_down_in_a_copy_and_stop_at_0() -> None:
    reply = read("www.example.com. 300 IN CNAME b.example.\nb.example. 60 IN A 192.0.2.1", SOA_RECORD)
    before = reply.records
    assert [record.ttl for record in given_to_client(counted_down(reply, 100)).rr] == [200, 0]
    assert [record.ttl for record in given_to_client(counted_down(reply, 100)).auth] == [800]
    assert reply.records == before
    assert counted_down(reply, 0) == reply


def test_another_ttl_may_be_put_on_all_of_them() -> None:
    reply = read("www.example.com. 300 IN CNAME b.example.\nb.example. 6 IN A 192.0.2.1", SOA_RECORD)
    record = given_to_client(with_ttl(reply, 30))
    assert [r.ttl for r in (*record.rr, *record.auth)] == [30, 30, 30]
    assert (with_ttl(reply, 30).flags, [str(r.rdata) for r in record.rr]) == (
        reply.flags,
        ["b.example.", "192.0.2.1"],
    )
