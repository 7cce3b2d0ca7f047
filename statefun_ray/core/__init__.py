"""The runtime's decisions: pure, synchronous, driven from outside. See docs/drivers.md.

Import the submodules; this module stays empty.
"""
