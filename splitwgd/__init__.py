"""splitwgd: sends chosen domains through WireGuard, and never lets them out any other way."""

__version__ = "0.1.0"
