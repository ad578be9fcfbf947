"""One stream that carries many calls: what both ends of it share, and the client's end.

The contract is ``protos/aipod/v1/trunk.proto``; the server's end is :mod:`aipod.rpc.trunk_service`.
"""
