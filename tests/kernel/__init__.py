"""The hands and the reconciler on a real kernel: each test in a fresh network namespace of its own."""
