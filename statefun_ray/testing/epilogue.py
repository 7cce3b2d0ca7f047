"""After a run that went well: break something on purpose, and see that it is noticed and named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statefun_checkpoints import layout

if TYPE_CHECKING:
    from statefun_ray.testing.simulator import Simulation

EPILOGUE_MS = 3_000


def run(simulation: Simulation) -> list[str]:
    """Choose one of several endings and return what is wrong with it."""
    choice = simulation.rng.random()
    if choice < 0.12:
        return _without_ingress(simulation)
    if choice < 0.3:
        return _with_damage(simulation)
    return []


def _with_damage(simulation: Simulation) -> list[str]:
    """Damage an object that the newest snapshot needs: nobody may start from it, or from an older one."""
    entry = simulation.final_entry()
    assert entry is not None, "the run ended with a snapshot"
    names = [part.path for part in entry.parts if part.path is not None]
    name = simulation.rng.choice([*names, layout.slot_path(entry.slot)])
    data = simulation.store.objects.objects[name]
    damage = simulation.rng.choice(["missing", "truncated", "changed"])
    if name == layout.slot_path(entry.slot) and damage == "missing":
        damage = "changed"  # a log that ends earlier is a log that ends earlier
    if damage == "missing":
        del simulation.store.objects.objects[name]
    elif damage == "truncated":
        simulation.store.objects.objects[name] = data[:-1]
    else:
        at = simulation.rng.randrange(len(data))
        simulation.store.objects.objects[name] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    return _refused(simulation, f"{name} is {damage}", name)


def _without_ingress(simulation: Simulation) -> list[str]:
    """Start while a registered log is not served: its accepted events would be lost."""
    simulation.ingress.is_alive = False
    return _refused(simulation, "the ingress is away", "nobody serves it")


def _refused(simulation: Simulation, what: str, text: str) -> list[str]:
    simulation.world.note(f"epilogue: {what}")
    coordinator = simulation.start_coordinator()
    simulation.world.run_until(lambda: coordinator.stopped is not None, EPILOGUE_MS)
    if not coordinator.stopped or text not in coordinator.stopped:
        return [f"{what}, and the coordinator says {coordinator.stopped!r} in phase {coordinator.core.phase}"]
    return []
