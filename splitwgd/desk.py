"""What is known of a group's servers: how they do, the way to each, the ports that rest there, and its cookie."""

from __future__ import annotations

import secrets

from splitwgd.cookies import CookieJar
from splitwgd.health import Ward
from splitwgd.ports import Berth
from splitwgd.servers import Server
from splitwgd.way import Way
from splitwgd.zones import Group


class Post(Berth):
    """What is known of one server: the way to it and where its ports rest, its cookie, and whether it does
    without EDNS."""

    __slots__ = ("jar", "server", "without_edns")

    def __init__(self, way: Way) -> None:
        super().__init__(way)
        self.server = way.server
        self.jar = CookieJar(secrets.token_bytes(8))
        self.without_edns = False


class Desk:
    """What is known of one group's servers, and how they do."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.ward = Ward(group.servers)
        self.posts = {server: Post(Way(server, group.mark, group.link)) for server in group.servers}
        self.looping: set[Server] = set()
        self.used = float("-inf")  # when a client's question was asked here last
        self._at_hand: Post | None = None

    def post(self, server: Server) -> Post:
        """What is known of this one; that of the server that was asked last is at hand."""
        post = self._at_hand
        if post is None or post.server is not server:
            post = self._at_hand = self.posts[server]
        return post
