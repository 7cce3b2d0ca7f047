"""Staying with a running application: a line now and then, and what Ctrl-C means.

=============================  =============================  ===============================
the application                Ctrl-C or SIGTERM              again
=============================  =============================  ===============================
local cluster, or attached     final snapshot, then the end   the end at once
detached, by a Ray job         as above (``ray job stop``)    the end at once
detached, on a cluster         this program ends,
                               the application goes on
=============================  =============================  ===============================
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import ray

from statefun_ray.cluster import connection, operate, registry
from statefun_ray.cluster.deployment import summary_of
from statefun_ray.cluster.errors import ApplicationFailed
from statefun_ray.cluster.signals import Signals

if TYPE_CHECKING:
    from statefun_ray.cluster.launch import Application

LINE_S: Final = 10.0
"""Between two lines of progress, when there is any."""

FAREWELL_S: Final = 0.5

WITHOUT_HEAD_S: Final = 10.0
"""For the answer to a stop when the same signal has ended Ray's head: if the coordinator's process ended
before it could answer, nobody is left to say so, and Ray waits for a minute."""


class Watch:
    """What a person sees of an application between its start and its end."""

    def __init__(self, application: Application, say: Callable[[str], None], signals: Signals) -> None:
        self._application = application
        self._say = say
        self._signals = signals
        self._last_counts: tuple[Any, ...] = ()
        self._last_line_s = time.monotonic()
        self._generation = 0

    def until_end(self) -> None:
        """Say where it listens, and return when the application has ended or is left.

        Raises:
            ApplicationFailed: it ended for an error.
        """
        self._introduce()
        self._follow()

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _ends_with_us(self) -> bool:
        application = self._application
        return (
            application.cluster.started_here or application.cluster.in_job or application.deployment.attached
        )

    def _introduce(self) -> None:
        deployment = self._application.deployment
        self._say(f"{deployment.name} is ready: {deployment.url}")
        for side, url in deployment.playground.items():
            self._say(f"  playground {side} {url}")
        self._say(f"  snapshots  {deployment.storage}")
        self._say(f"  ingress log {deployment.log_dir}")
        if self._ends_with_us:
            self._say("  Ctrl-C ends it with a final snapshot; started again it goes on from there")
        else:
            self._say(f"  Ctrl-C leaves it running; statefun-ray stop {deployment.name} ends it")

    def _follow(self) -> None:
        finished = self._application.coordinator.finished.remote()
        while True:
            done, _ = ray.wait([finished], timeout=0.2)
            if done:
                outcome = self._outcome(finished)
                if outcome is not None:
                    # Whoever stopped it hears of it from the same cluster: let them, then take it down.
                    time.sleep(FAREWELL_S)
                    self._say_ended(outcome)
                    return
                finished = self._application.coordinator.finished.remote()  # Ray is restarting it
                time.sleep(0.2)
            if self._signals.count:
                if not self._ends_with_us:
                    self._say(f"\n{self._application.name} goes on running; this program leaves")
                    return
                self._stop(finished)
                return
            self._progress()

    def _outcome(self, call: Any) -> dict[str, Any] | None:
        """Return how the application ended; None when only its coordinator has been restarted."""
        try:
            outcome: dict[str, Any] = ray.get(call)
        except ray.exceptions.ActorDiedError:
            return {"error": "", "killed": True}
        except ray.exceptions.ActorUnavailableError:
            return None
        return outcome

    def _stop(self, finished: Any) -> None:
        application = self._application
        self._say(f"\nending {application.name} with a final snapshot (once more: at once) ...")
        seen = self._signals.count
        call = application.coordinator.stop.remote()
        began_s = time.monotonic()
        deadline = began_s + operate.STOP_S
        while time.monotonic() < deadline and self._signals.count == seen:
            done, _ = ray.wait([call], timeout=0.1)
            if not done:
                if time.monotonic() - began_s >= WITHOUT_HEAD_S and not self._has_head():
                    break
                continue
            try:
                outcome = ray.get(call)
            except ray.exceptions.ActorUnavailableError:
                time.sleep(0.2)
                call = application.coordinator.stop.remote()
                continue
            except ray.exceptions.ActorDiedError:
                # It may have ended for a reason of its own before it heard of this. Without Ray's head, which
                # the same signal may have ended, nobody says so.
                said, _ = ray.wait([finished], timeout=FAREWELL_S)
                outcome = (self._outcome(finished) if said else None) or {"error": "", "killed": True}
            self._say_ended(outcome)
            self._end_processes()
            return
        self._end_processes()
        registry.forget(application.name)
        self._say(
            f"{application.name} was ended without a final snapshot; started again it goes on from its last one, "
            "and every accepted event is still in the ingress log"
        )

    def _has_head(self) -> bool:
        cluster = self._application.cluster
        return not cluster.started_here or connection.is_listening(cluster.address)

    def _end_processes(self) -> None:
        # A cluster of our own goes down with us, and may have lost its head to the same signal: who stops
        # a service or a terminal signals every process in it. Asking that head would wait for a minute.
        if not self._application.cluster.started_here:
            operate.end_processes(self._application.name)

    def _say_ended(self, outcome: dict[str, Any]) -> None:
        name = self._application.name
        registry.forget(name)
        if self._application.cluster.started_here and not outcome.get("killed"):
            # The cluster goes down with us: let the ingress note first that its log was read to its end.
            self._application.close_ingress(outcome)
        if outcome.get("error"):
            raise ApplicationFailed(name, outcome["error"])
        if outcome.get("killed"):
            self._say(f"{name} was killed; started again it goes on from its last snapshot")
            return
        snapshot = outcome.get("last_snapshot") or {}
        self._say(
            f"{name} has ended with snapshot {snapshot.get('id')} in {self._application.deployment.storage}; "
            "run it again to go on from there"
        )

    def _progress(self) -> None:
        if time.monotonic() - self._last_line_s < LINE_S:
            return
        self._last_line_s = time.monotonic()
        try:
            status = ray.get(self._application.coordinator.status.remote(), timeout=operate.ANSWER_S)
        except ray.exceptions.RayError as error:
            self._say(f"no status ({type(error).__name__})")
            return
        counts = status["generation"], status["accepted"], status["processed"], status["parked"]
        if counts == self._last_counts:
            return
        self._last_counts = counts
        self._say(summary_of(status))
