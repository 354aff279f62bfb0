"""Odd packets, and what the decoders of splitwgd make of them.

`corpus` makes the packets (they also lie in corpus/, for fuzzers of other makes), `mutate` changes them, `targets`
feeds them to the decoders and checks what comes out with the eyes of `reader`, which shares no code with splitwgd.
A long run, on every core, until it has fed ten million mutants or found something::

    python -m tests.fuzz --mutants 10000000

What it finds lands in corpus/found/ and is a test from then on.
"""
