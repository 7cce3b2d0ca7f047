"""The ingress's shell: the log in its directory, its registration, HTTP, and the feed for workers.

Everything that decides or serves is in ``statefun_ingress``, which knows neither functions nor
storage. Here the three meet: the functions say what may be sent, and the storage learns of the
log before the first event is accepted, so no restore can overlook it.

A log is registered exactly while it may hold events that no snapshot has read: closed after the final
snapshot, it usually holds none.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from statefun_checkpoints.errors import StoreError
from statefun_checkpoints.layout import ingress_path
from statefun_checkpoints.store import ObjectStore
from statefun_ingress.config import LIMITS, IngressConfig
from statefun_ingress.errors import CannotListen
from statefun_ingress.files import OsLogFiles
from statefun_ingress.log import IngressLog
from statefun_ingress.registry import FunctionInfo, Registry
from statefun_ingress.service import IngressService
from statefun_ray.core.key_groups import KEY_GROUP_COUNT_DEFAULT
from statefun_ray.module.model import NO_MODULE, Module
from statefun_sdk import StatefulFunctions, json_typenames

logger = logging.getLogger(__name__)

LISTEN_AGAIN_S: Final = 0.5
"""Between attempts to listen where an ingress has listened before."""


@dataclass(frozen=True)
class IngressHostConfig:
    """What an ingress process is told."""

    app: str
    log_dir: str
    """Directory of the log: created if missing, locked while it is open."""
    http_host: str = "127.0.0.1"
    http_port: int = 0
    feed_host: str = "127.0.0.1"
    node: str = ""
    key_group_count: int = KEY_GROUP_COUNT_DEFAULT
    secret: bytes | None = None
    """Kept for the feed's handshake, which has none in this version."""
    module: Module = NO_MODULE
    settings: dict[str, Any] = field(default_factory=dict)
    """Of `IngressConfig`, where they differ from their defaults."""
    waits_to_listen: bool = False
    """For its addresses, if they are taken: clients know them already, and nobody is there to choose others."""


class IngressHost:
    """One ingress: `start`, then `close`."""

    def __init__(
        self,
        config: IngressHostConfig,
        functions: StatefulFunctions,
        store: ObjectStore,
        *,
        may_begin: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Args:
        config: where to listen, and where the log is.
        functions: the embedded ones.
        store: where the log is registered.
        may_begin: awaited before a log is registered that is not yet. A start that is refused must leave no
            log behind that later starts would look for.
        """
        self.config = config
        self._may_begin = may_begin
        self._directory = os.path.abspath(config.log_dir)
        self._registry = registry_of(functions, config.module)
        self._store = store
        self._service: IngressService | None = None

    async def start(self) -> None:
        """Open the log, register it, and listen.

        Raises:
            LogLocked: another live process has the directory.
            CorruptLog: something acknowledged is damaged or missing in it.
            CannotListen: an address is taken or not ours, and is not to be waited for.
            StoreError: the log could not be registered; nothing was accepted.
        """
        config = self.config
        # Opening checks every record: a second per gigabyte, in a thread of its own.
        with ThreadPoolExecutor(1, thread_name_prefix="ingress-open") as executor:
            log = await asyncio.get_running_loop().run_in_executor(executor, self._open_log)
        service = IngressService(
            IngressConfig(
                app_name=config.app,
                key_group_count=config.key_group_count,
                http_host=config.http_host,
                http_port=config.http_port,
                feed_host=config.feed_host,
                **{**_module_settings(config.module), **config.settings},
            ),
            log,
            self._registry,
            register=self._register,
            unregister=self._unregister,
        )
        try:
            await self._listen(service)
        except BaseException:
            log.close()
            raise
        self._service = service

    async def _listen(self, service: IngressService) -> None:
        said = ""
        while True:
            try:
                return await service.start()
            except CannotListen as error:
                if not self.config.waits_to_listen:
                    raise
                if str(error) != said:
                    said = str(error)
                    logger.warning("the ingress waits: %s", said)
            await asyncio.sleep(LISTEN_AGAIN_S)

    def drain(self) -> None:
        """Accept no more events, and go on feeding and answering."""
        self._started.drain()

    async def close(self, read_to: Mapping[str, int] | None = None) -> None:
        """Finish what is under way, close the log and stop listening.

        Args:
            read_to: by log, the sequence below which everything is in a committed snapshot.
        """
        if self._service is not None:
            service, self._service = self._service, None
            await service.stop((read_to or {}).get(service.core.log.log_id, 0))

    @property
    def log_id(self) -> str:
        """Of the log: stays the same over restarts in the same directory."""
        return self._started.core.log.log_id

    @property
    def feed_address(self) -> tuple[str, int]:
        """Where workers connect for the events."""
        return self._started.feed_address

    @property
    def http_address(self) -> tuple[str, int]:
        """Where HTTP listens."""
        return self._started.http_address

    @property
    def url(self) -> str:
        """Of HTTP, without a slash at the end."""
        return _url(self.http_address)

    @property
    def playground_url(self) -> str:
        """Of the playground's ingress; empty where there is none."""
        return _url(self._started.playground_address)

    @property
    def playground_egress_url(self) -> str:
        """Of the playground's egress; empty where there is none."""
        return _url(self._started.playground_egress_address)

    def counts(self) -> dict[str, Any]:
        """Return accepted events, those not handed to a worker yet, and waiting requests."""
        status = self._started.status()
        return {name: status[name] for name in ("log_id", "accepted", "lag", "pending_replies")}

    @property
    def _started(self) -> IngressService:
        assert self._service is not None, "the ingress has not been started"
        return self._service

    def _open_log(self) -> IngressLog:
        files = OsLogFiles(self.config.log_dir)
        try:
            return IngressLog.open(files, secrets.token_hex(6))
        except BaseException:
            files.close()
            raise

    async def _register(self, log_id: str) -> None:
        registration = {
            "format": 1,
            "log_id": log_id,
            "application": self.config.app,
            "node": self.config.node,
            "directory": self._directory,
        }
        data = json.dumps(registration, indent=1).encode()
        path = ingress_path(log_id)
        if self._may_begin is not None and await asyncio.to_thread(self._store.get, path) is None:
            await self._may_begin()
        await asyncio.to_thread(self._store.put, path, data)

    async def _unregister(self, log_id: str) -> None:
        try:
            await asyncio.to_thread(self._store.delete, ingress_path(log_id))
        except StoreError as error:
            logger.warning("log %s stays registered, so the next start has to find it: %s", log_id, error)


def _url(address: tuple[str, int]) -> str:
    host, port = address
    if not port:
        return ""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _module_settings(module: Module) -> dict[str, Any]:
    settings: dict[str, Any] = {LIMITS[name][0]: bytes_max for name, bytes_max in module.http_limits.items()}
    if module.playground_ingress is not None:
        settings["playground_port"] = module.playground_ingress.port
    if module.playground_egress is not None:
        settings["playground_egress_port"] = module.playground_egress.port
        settings["playground_topics"] = module.playground_egress.topics
    return settings


def registry_of(functions: StatefulFunctions, module: Module) -> Registry:
    """Return what an ingress has to know of embedded and remote functions together."""
    remote = [FunctionInfo(endpoint.functions) for endpoint in module.endpoints if not endpoint.is_pattern]
    namespaces = [endpoint.namespace for endpoint in module.endpoints if endpoint.is_pattern]
    return Registry([*function_infos(functions), *remote], json_typenames(), namespaces)


def function_infos(functions: StatefulFunctions) -> list[FunctionInfo]:
    """Return what an ingress has to know of the functions."""
    return [
        FunctionInfo(
            typename=typename,
            accepts=[(accepted.typename, accepted.is_json) for accepted in function.accepts],
            states={spec.name: (spec.type.typename, spec.type.is_json) for spec in function.specs},
        )
        for typename, function in functions.functions.items()
    ]
