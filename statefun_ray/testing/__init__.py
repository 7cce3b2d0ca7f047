"""Public test tools: the seeded simulator and the in-process harness. Import the submodules."""
