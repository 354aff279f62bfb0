"""Runs a command of the tests on Debian's own kernel, in a throw-away virtual machine."""
