"""How splitwg becomes a Debian package."""
