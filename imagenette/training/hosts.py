"""A training over several hosts: which network reaches the others, and what happens when one falls silent.

A host that loses its power or its cable closes no connection, so a rank that waits for it in a collective
would wait for the process group's whole timeout. Therefore each rank writes a beat into torchrun's store (a
small server on the first host) at short intervals, and watches the beats of the others. Where one stays out,
a rank shuts down its own connections for collectives: the collective that it waits in fails, and the run ends
as on any error.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
from torch.distributed.distributed_c10d import PrefixStore, Store

from imagenette.errors import EXIT_FAILED, RunError
from imagenette.processes import outlast

SILENCE = float(os.environ.get("IMAGENETTE_SILENCE") or 30)
"""Seconds without a beat after which a host is given up."""
LOOKS = 6  # in that time. Looks are counted, not seconds: a job suspended as a whole finds no host silent
GRACE = 15  # seconds that a rank then gets to end by itself
TORCHRUN = 15  # seconds that torchrun gets to end after its ranks
DONE = b"done"
_GOES_ON = "the same command goes on from the last checkpoint"


class HostLost(RunError):
    """Another host is silent, or its part of the training has ended."""

    silent = False
    """Whether nothing comes from it: then this host's own torchrun may hang in a call to a store over
    there."""


def several() -> bool:
    """Whether this is a rank of a training over several hosts, by torchrun's variables."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1


def choose_interface(store: Store) -> None:
    """Make gloo use the network that leads to the other hosts, unless the user chose one. By itself it takes
    the address of this host's own name, often 127.0.1.1, at which no other host finds it."""
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    group = int(os.environ["GROUP_RANK"])
    if group == 0:  # the store is on this host: the way to another host counts
        here = _address_towards(store.get("address/1").decode())
    else:
        here = _address_towards(os.environ["MASTER_ADDR"])
        store.set(f"address/{group}", here)
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address.partition("%")[0] == here for address in addresses):
            os.environ["GLOO_SOCKET_IFNAME"] = name


def _address_towards(host: str) -> str:
    """This host's address on the way to another. Nothing is sent: connecting a UDP socket only looks up the
    route."""
    family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as asking:
        asking.connect(address)
        return str(asking.getsockname()[0]).partition("%")[0]


class HostWatch:
    """One rank's own beats, and its watch over those of the others."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        """To be made on every rank before the process group. store: the one that all share; it is used
        through a connection of its own."""
        self.lost: HostLost | None = None
        """The host that is silent, once one is."""
        self.before_exit: Callable[[HostLost], object] = lambda lost: None
        """Called right before the process is ended, where the main thread does not end in time."""
        self._rank = rank
        self._store = PrefixStore("watch", store.clone())
        self._store.set(f"host/{rank}", socket.gethostname())
        self._store.set(f"beat/{rank}", "0")
        self._hosts = [self._store.get(f"host/{r}").decode() for r in range(size)]
        self._others = [r for r in range(size) if r != rank]
        self._heard = dict.fromkeys(self._others, b"")  # each rank's last beat
        self._missed = dict.fromkeys(self._others, 0)  # looks since it changed
        self._store_missed = 0  # looks since the store answered
        self._connections = _connections()  # so far
        self._over = threading.Event()  # the training has ended here, one way or another
        self._noticed = threading.Event()  # the main thread knows of the loss

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, beat and watch; HostLost takes the place of the error that a collective raises for a lost
        host."""
        self._connections = _connections() - self._connections  # those that the process group made
        # Two threads: the one that beats may hang for a quarter of an hour in a call to a store that is gone.
        beating = threading.Thread(target=self._keep_beating, name="beats", daemon=True)
        beating.start()
        threading.Thread(target=self._look, name="watch", daemon=True).start()
        try:
            yield
        except Exception as error:
            lost = self.cause(error)
            if lost is error:
                raise
            raise lost from None
        finally:
            self._over.set()
            if self.lost is None:
                beating.join(timeout=SILENCE / LOOKS)  # its last beat says that this rank is done

    def cause(self, error: BaseException) -> BaseException:
        """The lost host behind an error; else the error itself."""
        self._noticed.set()
        if self.lost:
            return self.lost
        if isinstance(error, RuntimeError) and "gloo" in str(error):  # the host still closed its connections
            return HostLost(f"a process on another host has ended: {_GOES_ON}")
        return error

    def _keep_beating(self) -> None:
        beat = 0
        with contextlib.suppress(Exception):  # a store that fails counts as silent, like one that hangs
            while not self._over.wait(SILENCE / LOOKS):
                beat += 1
                self._store.set(f"beat/{self._rank}", str(beat))
                beats = self._store.multi_get([f"beat/{r}" for r in self._others])
                for r, heard in zip(self._others, beats, strict=True):
                    if heard != self._heard[r] or heard == DONE:
                        self._heard[r], self._missed[r] = heard, 0
                self._store_missed = 0
            self._store.set(f"beat/{self._rank}", DONE.decode())

    def _look(self) -> None:
        while not self.lost:
            if self._over.wait(SILENCE / LOOKS):
                return
            self._store_missed += 1
            for r in self._others:
                self._missed[r] += 1
            self.lost = self._silent()
        for connection in _connections() & self._connections:
            with socket.socket(fileno=os.dup(connection.fd)) as ours:
                ours.shutdown(socket.SHUT_RDWR)
        if self._noticed.wait(GRACE):  # else the main thread waits for a GPU, or draws figures
            time.sleep(3 * GRACE)  # for the tracker's last records and the process group's end
        leave(self.lost, self.before_exit)
        os._exit(EXIT_FAILED)

    def _silent(self) -> HostLost | None:
        silent = [r for r in self._others if self._missed[r] > LOOKS]
        if not silent:
            return None
        # Without an answer from the store no beat is seen at all: then the store's own host is gone.
        host = self._hosts[0 if self._store_missed > LOOKS // 2 else silent[0]]
        ranks = ", ".join(str(r) for r in silent if self._hosts[r] == host)
        lost = HostLost(f"host {host} (rank {ranks}) has been silent for {SILENCE:g} s: {_GOES_ON}")
        lost.silent = True
        return lost


def leave(lost: HostLost, record_end: Callable[[HostLost], object]) -> None:
    """What a host's first rank does last when another host is lost. Its torchrun may hang in a call to a
    store over there, where only SIGKILL ends it."""
    if os.environ["LOCAL_RANK"] != "0":
        return
    if os.environ["RANK"] != "0":  # rank 0's command line prints it
        print(f"imagenette: {lost}", file=sys.stderr, flush=True)
    record_end(lost)
    if lost.silent:
        outlast(os.getppid(), seconds=TORCHRUN)


def _connections() -> set[Any]:
    """This process's TCP connections, each with its file descriptor and both addresses."""
    return {c for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_ESTABLISHED}
