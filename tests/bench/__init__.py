"""Speed and memory of splitwgd beside dnsmasq and smartdns: `sudo ./do bench`, see docs/performance.md.

`rows` says what is measured and shown, `loads` how, `peers` how each is configured, `world` where (two network
namespaces), `machine` is one server under test, `ours` splitwgd as one, `report` the table. `authority.c` is the
DNS server that all of them ask.

To see where splitwgd's time goes, inside the enclosure of `do`::

    python -m tests.bench.ours --profile [cached|plain|tunneled] [--seconds 5]     cProfile of the loop's thread
    python -m tests.bench.ours --profile plain --perf perf.data               perf, with the kernel's share

To try one change: `python -m tests.bench --quick --rows 2 --runs 3`. Where others use the machine too, compare
the CPU time of a query: it stays the same within a tenth when queries/s are halved.
"""
