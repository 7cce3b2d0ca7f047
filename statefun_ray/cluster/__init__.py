"""The Ray driver: the only code of the project that imports ray.

Ray places, starts, watches and replaces processes and lets them find each other; everything else
they say goes over TCP connections of our own (``statefun_ray.io``), and everything that decides
is in the core.
"""
