"""The shells around the pure core: sockets, files, clocks, threads and user code.

Everything here drives classes of ``statefun_ray.core`` and of the other packages, and decides
nothing that matters for correctness. It runs without Ray.
"""
