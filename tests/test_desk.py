"""What is known of servers is found, whichever of them was asked last."""

from __future__ import annotations

from splitwgd.desk import Desk
from tests.datagrams import group_of
from tests.worlds import server


def test_each_server_has_a_post_and_keeps_it() -> None:
    first, second = server("192.0.2.1"), server("192.0.2.2")
    desk = Desk(group_of(first, second))
    posts = {each: desk.post(each) for each in (first, second)}
    assert [desk.post(each).way.server for each in (first, first, second, first)] == [first, first, second, first]
    assert all(desk.post(each) is post for each, post in posts.items())
    assert desk.post(server("192.0.2.2")) is posts[second]  # an equal one, as from another configuration
    assert posts[first].jar.secret != posts[second].jar.secret
