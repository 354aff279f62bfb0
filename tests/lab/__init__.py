"""The lab: a whole small world on one machine, where a test can lie, cut cables and watch the wire.

::

      client                     isp                       internet
    198.51.100.2/25        .1  (routes v4    10.99.0.1    203.0.113.0/24   every address: web on 80,
    2001:db8:c::2/64 eth0----   and v6;  ------------     192.0.2.0/24     UDP echo on 9
        |                  ^    no NAT)  2001:db8:a::/64  2001:db8:1::/48
        |               capture   |                       DNS: 203.0.113.53  203.0.113.54
        |           (the ISP's    | 198.51.100.129             2001:db8:1::53, and the foreign
        |               eyes)     |                            192.0.2.53: all of them lie
        |                       eth0 198.51.100.130/25
        |   WireGuard, UDP 51820  |  2001:db8:b::2/64
        +- - - - - - - - - - - - vpn  wg0 10.1.0.1/24 fd00:10:1::1/64: the honest DNS;
    10.1.0.2, fd00:10:1::2            masquerades the tunnel behind its public addresses

Every box is an anonymous network and mount namespace (`hosts`), wired together by `world.lab()`.
The names it knows are in `zone`, answered by `servers`; `capture` records what crosses the client's
cable in clear, `traffic` makes the client busy.  Nothing has a name outside of the processes which
hold it, so two labs never meet and a dead lab leaves nothing behind.

The lab refuses to start outside an enclosure, which is entered like this::

    unshare --net --mount --pid --fork --kill-child --mount-proc \\
        env SPLITWG_OUTER_NETNS=$(readlink /proc/self/ns/net) python -m pytest tests/lab
"""
