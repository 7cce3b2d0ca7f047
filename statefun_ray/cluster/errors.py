"""What can go wrong when an application is started, watched or stopped.

::

    StateFunError
    ├── UserError                  exit code 2: the command has to be written differently
    │   ├── BadTarget              TARGET does not name a StatefulFunctions
    │   └── BadSetting             an option has a value that cannot be used
    └── LaunchError                exit code 1: the surroundings have to change
        ├── ClusterUnreachable     no Ray answers at the address
        ├── ClusterOpen            several nodes and no authentication
        ├── NotEnoughCpus          have and need
        ├── PortTaken
        ├── AddressUnusable        not of this machine, or not for this user
        ├── StorageUnusable
        ├── LogFolderUnusable
        ├── LogInUse               a living process has the ingress log open
        ├── NameTaken              an application of this name runs already
        ├── UnknownApplication     none of this name runs
        ├── StartFailed            it was deployed and did not become ready
        ├── StartStopped           somebody stopped it before; no error to whoever did
        └── ApplicationFailed      it ran and has ended by itself

Each says what, where, found and expected, and what to do; all survive pickling.
"""

from __future__ import annotations

from statefun_sdk.errors import StateFunError, UserError


class BadTarget(UserError):
    """``TARGET`` does not lead to a ``StatefulFunctions``.

    Args:
        target: as written.
        problem: what was found instead.
        advice: what to do.
    """

    def __init__(self, target: str, problem: str, advice: str) -> None:
        super().__init__(target, problem, advice)
        self.target, self.problem, self.advice = target, problem, advice

    def __str__(self) -> str:
        return f"{self.target}: {self.problem}; {self.advice}"


class BadSetting(UserError):
    """An option has a value that cannot be used."""

    def __init__(self, setting: str, found: str, expected: str) -> None:
        super().__init__(setting, found, expected)
        self.setting, self.found, self.expected = setting, found, expected

    def __str__(self) -> str:
        return f"{self.setting} is {self.found!r}; expected {self.expected}"


class BadChoice(UserError):
    """It is not clear which dead letters are meant."""

    def __init__(self, action: str, ways: int) -> None:
        super().__init__(action, ways)
        self.action, self.ways = action, ways

    def __str__(self) -> str:
        if self.action == "show":
            return "which letter is to be shown? name it as list does: ID/LETTER"
        found = "in several ways at once" if self.ways else "not at all"
        return f"{self.action} which letters? they are named {found}; give ID/LETTER …, or --function TYPE, or --all"


class BadModule(UserError):
    """A module.yaml cannot be used; one line for each error in it."""

    def __init__(self, errors: tuple[str, ...]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        return "the module cannot be used\n" + "\n".join(self.errors)


class LaunchError(StateFunError):
    """The command is right, but its surroundings do not allow it now."""


class ClusterUnreachable(LaunchError):
    """No Ray cluster answers."""

    def __init__(self, address: str, cause: str) -> None:
        super().__init__(address, cause)
        self.address, self.cause = address, cause

    def __str__(self) -> str:
        return (
            f"no Ray cluster answers at {self.address}: {self.cause}; check the address and that this machine has "
            "the cluster's token (~/.ray/auth_token or RAY_AUTH_TOKEN), or start one with: ray start --head"
        )


class ClusterOpen(LaunchError):
    """A cluster of several nodes lets anybody on the network run code."""

    def __init__(self, address: str, nodes: int) -> None:
        super().__init__(address, nodes)
        self.address, self.nodes = address, nodes

    def __str__(self) -> str:
        return (
            f"the Ray cluster at {self.address} has {self.nodes} nodes and no token authentication, so anybody who "
            "reaches it can run code in this application; start it with RAY_AUTH_MODE=token, or accept that with "
            "--allow-open-cluster"
        )


class NotEnoughCpus(LaunchError):
    """The cluster has fewer CPUs free than the application needs."""

    def __init__(self, need: float, breakdown: str, have_free: float, have_total: float, advice: str) -> None:
        super().__init__(need, breakdown, have_free, have_total, advice)
        self.need, self.breakdown = need, breakdown
        self.have_free, self.have_total, self.advice = have_free, have_total, advice

    def __str__(self) -> str:
        return (
            f"too few CPUs: need {self.need:g} ({self.breakdown}), have {self.have_free:g} free of "
            f"{self.have_total:g} in the Ray cluster; {self.advice}"
        )


class PortTaken(LaunchError):
    """Something listens already where the HTTP ingress should."""

    def __init__(self, host: str, port: int, cause: str) -> None:
        super().__init__(host, port, cause)
        self.host, self.port, self.cause = host, port, cause

    def __str__(self) -> str:
        return (
            f"cannot listen on {self.host}:{self.port}: {self.cause}; stop what listens there, "
            f"or choose another: --http {self.host}:{self.port + 1}"
        )


class AddressUnusable(LaunchError):
    """The HTTP ingress may not listen where it should: not of this machine, or not for this user."""

    def __init__(self, host: str, port: int, cause: str) -> None:
        super().__init__(host, port, cause)
        self.host, self.port, self.cause = host, port, cause

    def __str__(self) -> str:
        return (
            f"cannot listen on {self.host}:{self.port}: {self.cause}; choose an address of this machine and a port "
            "that this user may open, for example --http 127.0.0.1:8080"
        )


class StorageUnusable(LaunchError):
    """Snapshots could not be written where they should go."""

    def __init__(self, uri: str, cause: str) -> None:
        super().__init__(uri, cause)
        self.uri, self.cause = uri, cause

    def __str__(self) -> str:
        return f"storage {self.uri} cannot be used: {self.cause}; choose a place this user may write to with --storage"


class LogFolderUnusable(LaunchError):
    """Accepted events could not be written where they should go."""

    def __init__(self, folder: str, cause: str) -> None:
        super().__init__(folder, cause)
        self.folder, self.cause = folder, cause

    def __str__(self) -> str:
        return (
            f"the log folder {self.folder} cannot be used: {self.cause}; choose one that this user may write to "
            "with --log-dir"
        )


class LogInUse(LaunchError):
    """The ingress log is open in another process."""

    def __init__(self, name: str, folder: str) -> None:
        super().__init__(name, folder)
        self.name, self.folder = name, folder

    def __str__(self) -> str:
        return (
            f"a living process has the ingress log in {self.folder} open: an application runs with it already (if it "
            f"is this one, 'statefun-ray status {self.name}' shows it); end that one, or give this one a --log-dir and "
            "a --storage of its own"
        )


class NameTaken(LaunchError):
    """An application of this name runs already."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__(name, where)
        self.name, self.where = name, where

    def __str__(self) -> str:
        return (
            f"an application named {self.name!r} runs already ({self.where}); look at it with "
            f"'statefun-ray status {self.name}', end it with 'statefun-ray stop {self.name}', "
            "or start this one under another --name"
        )


class UnknownApplication(LaunchError):
    """No application of this name runs.

    Args:
        name: asked for.
        running: names that could have been meant.
        looked_at: where was looked.
    """

    def __init__(self, name: str, running: tuple[str, ...], looked_at: str) -> None:
        super().__init__(name, running, looked_at)
        self.name, self.running, self.looked_at = name, running, looked_at

    def __str__(self) -> str:
        found = ", ".join(self.running) or "none"
        return (
            f"no application named {self.name!r} runs (looked at {self.looked_at}; running: {found}); "
            "name a running one, or give the cluster with --address HOST:PORT"
        )


class StartFailed(LaunchError):
    """The application was deployed but did not become ready."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(name, cause)
        self.name, self.cause = name, cause

    def __str__(self) -> str:
        return f"{self.name} did not start: {self.cause}"


class StartStopped(LaunchError):
    """The application was stopped before it was ready."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name} was stopped while starting; nothing was lost, the next start goes on"


class ApplicationFailed(LaunchError):
    """A running application has ended by itself."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(name, cause)
        self.name, self.cause = name, cause

    def __str__(self) -> str:
        return f"{self.name} has ended: {self.cause}"
