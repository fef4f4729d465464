"""Carries faults out, mends them, keeps the fleet alive between them, and writes down what really happened."""

import asyncio
import json
import random
import resource
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from habeas_embedded.fleet import Member
from habeas_embedded.servers import Server
from tests.kill.faults import SERVERS, Fault, Kind
from tests.kill.ground import Ground
from tests.kill.proxy import Proxy
from tests.kill.waiting import pause

_LOOK_S: Final = 0.2
_RESTART_PAUSE_S: Final = 0.5
_SERVER_FILE_BYTES: Final = 8 * 1024 * 1024  # less than a segment of the write-ahead log
_KEEP: Final = resource.RLIM_INFINITY
_LAST_BYTES: Final = 65_536
_EVERYWHERE: Final = {"level", "service", "instance"}


@dataclass(frozen=True, slots=True)
class Happened:
    """One fault as it went: `begun_s` and `ended_s` on the campaign's clock; `did` is empty when there was nothing to hit."""

    fault: Fault
    begun_s: float
    ended_s: float
    did: str


def last_words(log: Path) -> str:
    """Give what a process logged last as a warning or worse: the event with its fields, in a line."""
    raw = log.read_bytes()[-_LAST_BYTES:] if log.exists() else b""
    for line in reversed(raw.splitlines()):
        with suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and said.get("level") in {"warning", "error"}:
                return " ".join(f"{name}={value}" for name, value in said.items() if name not in _EVERYWHERE)
    return "nothing"


@dataclass(slots=True)
class Nemesis:
    """The faults of one campaign. `kills` counts processes that ran and were ended by our SIGKILL, by target."""

    ground: Ground
    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    happened: list[Happened] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    refused: int = 0  # faults that this machine does not let us make
    last_mended_s: float = 0.0
    _begun_s: float = 0.0
    _locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _down: set[str] = field(default_factory=set)
    _offsets: dict[str, float] = field(default_factory=dict)

    async def run(self, faults: Sequence[Fault], stopping: asyncio.Event) -> None:
        """Carry all faults out at their times and mend each; returns when the last is mended."""
        clock = self.ground.clock
        self._begun_s = clock.monotonic()
        rng = random.Random(f"kill-nemesis:{self.seed}")  # noqa: S311 -- which connections, nothing secret
        async with asyncio.TaskGroup() as tasks:
            for fault in faults:
                await pause(stopping, self._begun_s + fault.at_s - clock.monotonic())
                if stopping.is_set():
                    break
                tasks.create_task(self._one(fault, rng, stopping))
        for proxy in self.ground.proxies.all:
            proxy.mend()

    async def set_clocks_right(self) -> None:
        """Start whoever runs on a moved clock anew, in order."""
        for name in list(self._offsets):
            member = self._member(name)
            async with self._locks[name]:
                await self._stop_member(member)
                self._set_offset(member, 0.0)
                await self._start_member(member)
        self._mended()

    async def keep_alive(self, stopping: asyncio.Event) -> None:
        """Start whoever ended by itself again, as a supervisor would, and write its exit code down."""
        while not stopping.is_set():
            for member in self.ground.fleet.members:
                if not member.child.alive and member.name not in self._down and not self._locks[member.name].locked():
                    said = last_words(member.child.log)
                    self.ended.append(f"{member.name} ended by itself with {member.child.exit_code}: {said}")
                    async with self._locks[member.name]:
                        await pause(stopping, _RESTART_PAUSE_S)
                        await self._start_member(member)
            for server in self._servers():
                if not server.alive and server.name not in self._down and not self._locks[server.name].locked():
                    self.ended.append(f"{server.name} ended by itself")
                    async with self._locks[server.name]:
                        await server.start()
            await pause(stopping, _LOOK_S)

    def now_s(self) -> float:
        """The campaign's clock: seconds since the first fault was due."""
        return self.ground.clock.monotonic() - self._begun_s

    async def _one(self, fault: Fault, rng: random.Random, stopping: asyncio.Event) -> None:
        begun = self.now_s()
        did = await self._carry_out(fault, rng, stopping)
        self._mended()
        self.happened.append(Happened(fault, begun, self.now_s(), did))

    def _mended(self) -> None:
        self.last_mended_s = self.now_s()

    async def _carry_out(self, fault: Fault, rng: random.Random, stopping: asyncio.Event) -> str:
        match fault.kind:
            case Kind.CUT | Kind.REFUSE | Kind.DELAY | Kind.STALL:
                return await self._on_network(fault, rng, stopping)
            case Kind.KILL_ALL:
                outcomes = await asyncio.gather(
                    *(self._on_member(fault, member, stopping) for member in self.ground.fleet.members)
                )
                return f"{sum(1 for each in outcomes if each)} at once"
            case _ if fault.target in SERVERS:
                return await self._on_server(fault, rng, stopping)
            case _:
                member = self.ground.fleet.member(fault.target, fault.instance)
                return await self._on_member(fault, member, stopping)

    async def _on_network(self, fault: Fault, rng: random.Random, stopping: asyncio.Event) -> str:
        proxy: Proxy = getattr(self.ground.proxies, fault.target)
        async with self._locks[f"network {fault.target}"]:
            match fault.kind:
                case Kind.CUT:
                    return f"{proxy.cut(fault.measure, rng)} connections"
                case Kind.REFUSE:
                    proxy.refuses = True
                    proxy.cut()
                case Kind.DELAY:
                    proxy.delay_s = fault.measure
                case _:
                    proxy.stall()
            await pause(stopping, fault.seconds)
            proxy.mend()
        return f"{fault.seconds:.1f} s"

    async def _on_member(self, fault: Fault, member: Member, stopping: asyncio.Event) -> str:
        async with self._locks[member.name]:
            if not member.child.alive:
                return ""
            match fault.kind:
                case Kind.PAUSE:
                    return await self._paused([psutil.Process(member.child.pid)], fault.seconds, stopping)
                case Kind.QUOTA:
                    return await self._limited([psutil.Process(member.child.pid)], 0, fault.seconds, stopping)
                case Kind.RESTART:
                    await self._stop_member(member)
                    await self._start_member(member)
                    return f"exit code {member.child.exit_code}"
                case _:
                    if fault.kind is Kind.CLOCK:
                        self._set_offset(member, fault.measure)
                    self._down.add(member.name)
                    await self.ground.fleet.kill(member.service, member.instance)
                    self._count(member.service, member.child.exit_code)
                    await pause(stopping, fault.seconds)
                    await self._start_member(member)
                    return "killed"

    async def _on_server(self, fault: Fault, rng: random.Random, stopping: asyncio.Event) -> str:
        server = self._server(fault.target)
        async with self._locks[server.name]:
            if not server.alive:
                return ""
            family = self._family(server)
            match fault.kind:
                case Kind.PAUSE:
                    return await self._paused(family, fault.seconds, stopping)
                case Kind.QUOTA:
                    did = await self._limited(family, _SERVER_FILE_BYTES, fault.seconds, stopping)
                    if did:  # those made meanwhile inherited the limit
                        await self._on_each(self._family(server), lambda process: _limit(process, _KEEP))
                    return did
                case Kind.KILL_BACKEND:
                    if len(family) < 2:
                        return ""
                    with suppress(psutil.NoSuchProcess):
                        rng.choice(family[1:]).kill()
                        self.kills["postgres backend"] += 1
                    return "killed"
                case _:
                    return await self._server_again(server, fault, stopping)

    async def _server_again(self, server: Server, fault: Fault, stopping: asyncio.Event) -> str:
        self._down.add(server.name)
        try:
            if fault.kind is Kind.RESTART:
                await server.stop()
            else:
                await server.kill()
                self.kills[server.name] += 1
            await pause(stopping, fault.seconds)
            await server.start()
        finally:
            self._down.discard(server.name)
        return "started again"

    async def _paused(self, family: Sequence[psutil.Process], seconds: float, stopping: asyncio.Event) -> str:
        """Stop processes, parents first so that none is made meanwhile, and let them go on."""
        await self._on_each(family, lambda process: process.suspend())
        try:
            await pause(stopping, seconds)
        finally:
            await self._on_each(reversed(family), lambda process: process.resume())
        return f"{seconds:.1f} s"

    async def _limited(
        self, family: Sequence[psutil.Process], size: int, seconds: float, stopping: asyncio.Event
    ) -> str:
        """Let no file of these processes grow beyond a size: writing fails as on a full disk (EFBIG, not ENOSPC).

        Another user's processes (PostgreSQL, when we are root) may be out of reach where capabilities are taken away.
        """
        try:
            await self._on_each(family, lambda process: _limit(process, size))
        except PermissionError:
            self.refused += 1
            return ""
        try:
            await pause(stopping, seconds)
        finally:
            await self._on_each(family, lambda process: _limit(process, _KEEP))
        return f"{seconds:.1f} s"

    @staticmethod
    async def _on_each(family: Iterable[psutil.Process], does: Callable[[psutil.Process], object]) -> None:
        for process in family:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                does(process)

    async def _stop_member(self, member: Member) -> None:
        self._down.add(member.name)
        await self.ground.fleet.stop_service(member.service, member.instance)

    async def _start_member(self, member: Member) -> None:
        """Start it without waiting until it is ready: the next fault may hit a service that starts."""
        if not member.child.alive:
            self.ground.fleet._spawn(member)
        self._down.discard(member.name)

    def _set_offset(self, member: Member, offset_s: float) -> None:
        env = dict(member.child.env or {})
        env["HABEAS_CLOCK_OFFSET_S"] = f"{offset_s:.3f}"
        member.child.env = env
        if offset_s:
            self._offsets[member.name] = offset_s
        else:
            self._offsets.pop(member.name, None)

    def _count(self, target: str, exit_code: int | None) -> None:
        if exit_code == -signal.SIGKILL:
            self.kills[target] += 1

    def _member(self, name: str) -> Member:
        return next(member for member in self.ground.fleet.members if member.name == name)

    def _servers(self) -> tuple[Server, ...]:
        return tuple(self._server(name) for name in SERVERS)

    def _server(self, name: str) -> Server:
        servers = self.ground.servers
        found: Server = {"kafka": servers.kafka, "postgres": servers.postgres, "smtp": servers.smtp}[name]
        return found

    def _family(self, server: Server) -> list[psutil.Process]:
        child = getattr(server, "_child", None)
        if child is None:
            return []
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(child.pid)
            return [process, *process.children(recursive=True)]
        return []


def _limit(process: psutil.Process, size: int) -> None:
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    soft = hard if size == _KEEP else size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))
