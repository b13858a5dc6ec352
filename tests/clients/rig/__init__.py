"""What the client tests stand on: processes, images, an upstream that counts, repoxy, real clients.

Nothing here asserts anything about repoxy; the `test_*.py` files beside this package do.
Everything listens on 127.0.0.1, writes below one scratch directory, and is stopped by process id.
"""
