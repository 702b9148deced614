"""Servers of one model on a Ray cluster: an actor a server, started again elsewhere when lost.

    vigorl serve Qwen/Qwen2.5-VL-72B-Instruct --ray --replicas 4 --tensor-parallel 8
    vigorl build sat2 --teacher served:Qwen/Qwen2.5-VL-72B-Instruct --space qwen2.5-vl

Ray finds room for each actor, which runs the command that `vigorl serve` runs on one machine
(`flows.teachers.vllm`), vLLM in its own environment: Ray Serve LLM wants vLLM in Ray's, and another
version. An actor ends with its server, a server with its actor, and all with this process; Ray
starts a lost actor again where there is room, and its server has another address then. The
addresses are kept in the warehouse (`flows.teachers.served`), where builds look for them; a build
keeps a tree with one server (`mcts.teachers.replicas`), for its prefix cache.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout
from functools import partial
from typing import Any

from flows.progress import Report, report_to_stderr
from flows.ray_cluster import join_ray
from flows.settings import ServeSettings
from flows.settings_base import Problem
from flows.teachers.served import forget_servers, note_servers
from flows.teachers.trained import served_model
from flows.teachers.vllm import Server, stopped_by_signals
from warehouse.storage.failures import describe
from warehouse.storage.home import Warehouse, first_line

_EVERY_S = 1.0
"""Seconds between two looks at the actors."""
_PAUSE_S = 10.0
"""Seconds until another actor takes the place of one whose server did not start again."""


# Ray kills the children of a worker that ends: the supervisor, before it could end the
# server. So it is the child of a shell, and ends the server when the pipe from here closes.
_SHELL = ("/bin/sh", "-c", '"$@"; exit $?', "sh")


class _ServerActor:
    """What runs on the cluster: one server, for as long as this actor."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import ray

        here = ray.util.get_node_ip_address()
        self._url = self._model = self._problem = ""
        try:
            given = ServeSettings.checked(**{**settings, "host": here, "port": None})
            self._server = Server(given, lambda sentence: None, through=_SHELL)
            with ExitStack() as stack:
                stack.enter_context(self._server)
                self._server.wait()
                stack.pop_all()
        except Problem as problem:  # raised here, Ray would try for ever
            self._problem = str(problem)
            return
        self._url, self._model = self._server.url, self._server.name
        threading.Thread(target=self._end_with_server, daemon=True).start()

    def _end_with_server(self) -> None:
        self._server.process.wait()
        os._exit(1)  # Ray starts the actor again, with another server

    def address(self) -> tuple[str, str, str]:
        """Return the server's URL and the name of its model, or why there is none."""
        return self._url, self._model, self._problem


class RayServers:
    """Servers of one model on a cluster, from the moment this is made until it is stopped.

    Args:
        name: what their addresses are noted under.

    Raises:
        Problem: Ray is not installed, there is no cluster, or no server came up.
    """

    def __init__(
        self, settings: ServeSettings, name: str, report: Report = report_to_stderr
    ) -> None:
        self._settings, self._name, self._report = settings, name, report
        self._warehouse = Warehouse.at(settings.home)
        # Not in the main thread, whose signals are the command's.
        self._aside = ThreadPoolExecutor(1)
        connect = partial(join_ray, "ray", ignore_reinit_error=True)
        self._ray: Any = self._aside.submit(connect).result()
        self._actors = [self._actor() for _ in range(settings.replicas)]
        self._asked = [actor.address.remote() for actor in self._actors]
        self._retry_at: list[float | None] = [None] * settings.replicas
        self._known: list[tuple[str, str] | None] = [None] * settings.replicas
        self._noted: list[str] = []
        self._owner, self._failing = uuid.uuid4().hex, False

    def _actor(self) -> Any:
        given = self._settings
        gpus = 0 if given.cpu else given.tensor_parallel * given.data_parallel
        options: dict[str, Any] = {
            "num_cpus": 1, "num_gpus": gpus, "scheduling_strategy": "SPREAD",
            "max_restarts": -1, "max_task_retries": -1,
        }  # fmt: skip
        return self._ray.remote(**options)(_ServerActor).remote(given.model_dump())

    @property
    def urls(self) -> list[str]:
        """The addresses of the servers that were up when last looked at."""
        return [known[0] for known in self._known if known]

    def wait(self) -> None:
        """Return once every server answers; note their addresses as they come.

        Raises:
            Problem: one could not be started, or there is no room for it on the cluster.
        """
        count = self._settings.replicas
        self._report(f"starting {count} servers of {self._settings.model} on the cluster")
        end = time.monotonic() + self._settings.timeout
        while len(self.urls) < count:
            self.look(starting=True)
            if time.monotonic() > end:
                raise Problem(
                    f"{len(self.urls)} of {count} servers answer after "
                    f"{self._settings.timeout:g} s (--timeout): has the cluster room for all?"
                )
            time.sleep(_EVERY_S / 5)

    def look(self, *, starting: bool = False) -> None:
        """Ask the actors for their addresses, and note in the warehouse what has changed.

        Raises:
            Problem: while starting, a server did not come up.
        """
        for i, asked in enumerate(self._asked):
            retry_at = self._retry_at[i]
            if retry_at is not None:
                if time.monotonic() < retry_at:
                    continue
                self._actors[i], self._retry_at[i] = self._actor(), None
            elif not self._ray.wait([asked], timeout=0)[0]:
                continue  # it is being started, maybe again: what is known of it stands
            else:
                url, model, problem = self._answer(asked)
                if problem and starting:
                    raise Problem(problem)
                if problem:
                    self._report(f"server {i + 1} is lost, another one is next: {problem}")
                    self._ray.kill(self._actors[i])
                    self._known[i], self._retry_at[i] = None, time.monotonic() + _PAUSE_S
                    continue
                if self._known[i] not in (None, (url, model)):
                    self._report(f"server {i + 1} is back, at {url}")
                self._known[i] = url, model
            self._asked[i] = self._actors[i].address.remote()
        if self.urls != self._noted:
            self._note(starting)

    def _note(self, starting: bool) -> None:
        """Note the addresses; while serving, what fails is told once and tried at each look."""
        model = next((known[1] for known in self._known if known), "")
        urls = self.urls
        try:
            note_servers(self._warehouse, self._name, model, urls, self._owner)
        except Exception as error:  # whatever a disk or a store's client raises
            if starting:
                raise
            if not self._failing:
                why = describe(error) or first_line(error)
                self._report(f"the servers' addresses can't be noted, and are tried again: {why}")
            self._failing = True
            return
        self._noted, self._failing = urls, False

    def _answer(self, asked: Any) -> tuple[str, str, str]:
        try:
            url, model, problem = self._ray.get(asked)
        except self._ray.exceptions.RayActorError as error:
            return "", "", str(error).strip().splitlines()[0]
        return url, model, problem

    def stop(self) -> None:
        """End all servers and forget their addresses."""
        try:
            forget_servers(self._warehouse, self._name, self._owner)
        except Exception as error:  # no reason to leave servers behind
            why = describe(error) or first_line(error)
            self._report(f"the note of the servers' addresses is left behind: {why}")
        for actor in self._actors:
            self._ray.kill(actor)
        self._aside.submit(self._ray.shutdown).result()
        self._aside.shutdown()


def serve_on_ray(settings: ServeSettings) -> None:
    """`vigorl serve --ray`: start servers, print their URLs, replace lost ones until Ctrl-C.

    Raises:
        Problem: see `RayServers`.
    """
    model = served_model(settings.home, settings.model)
    name = settings.name or settings.model
    printed = sys.stdout
    # Ray writes messages of its own there, which a script would take for the URLs.
    with stopped_by_signals(), redirect_stdout(sys.stderr):
        servers = RayServers(settings.model_copy(update={"model": model}), name)
        try:
            with stopped_by_signals():  # again: Ray's own handler aborts the process after 3 s
                servers.wait()
                report_to_stderr(
                    f"serving until Ctrl-C; a build asks all with --teacher served:{name}, or these"
                )
                print(",".join(servers.urls), file=printed, flush=True)
                while True:
                    time.sleep(_EVERY_S)
                    servers.look()
        except KeyboardInterrupt:
            report_to_stderr("the servers are stopped")
        finally:
            servers.stop()
