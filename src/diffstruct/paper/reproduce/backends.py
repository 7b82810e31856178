"""Where runs are made: processes of this machine, or a Ray or Dask cluster, through joblib's backends."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import joblib

from diffstruct.errors import ConfigurationError


@contextmanager
def workers(backend: str, jobs: int | None) -> Iterator[int]:
    """Make `backend` joblib's while the context lasts; yields how many runs go side by side.

    Args:
        backend: `"loky"`, `"ray"` or `"dask"`.
        jobs: runs side by side; None for as many as there are cores, here or on the cluster.

    Raises:
        ConfigurationError: there is no such backend, it is not installed, or its cluster does not answer.
    """
    if backend not in BACKENDS:
        raise ConfigurationError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if jobs is not None and jobs < 1:
        raise ConfigurationError(f"jobs must be at least 1, got {jobs}")
    with (
        BACKENDS[backend](jobs) as (count, options),
        joblib.parallel_config(backend, n_jobs=count, **options),
    ):
        yield count


_Started = Iterator[tuple[int, dict[str, Any]]]


@contextmanager
def _loky(jobs: int | None) -> _Started:
    yield jobs or joblib.cpu_count(), {}


@contextmanager
def _ray(jobs: int | None) -> _Started:
    """A cluster that RAY_ADDRESS names, else one of this machine for as long as it is needed."""
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise _missing("ray", "Ray") from error
    register_ray()
    # Without an address Ray would join, or wait for, whatever cluster it finds on this machine.
    options: dict[str, Any] = {"address": "local", "num_cpus": jobs or joblib.cpu_count()}
    options["include_dashboard"] = False
    if "RAY_ADDRESS" in os.environ:
        _knock(os.environ["RAY_ADDRESS"])
        options = {}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if options:
            raise ConfigurationError(f"Ray does not start on this machine: {_line(error)}") from error
        raise _no_answer("RAY_ADDRESS", error) from error
    # Ray's own would abort the process, nothing written.
    signal.signal(signal.SIGTERM, signal.SIG_DFL if handler is None else handler)
    try:
        yield jobs or int(ray.cluster_resources()["CPU"]), {}
    finally:
        ray.shutdown()


@contextmanager
def _dask(jobs: int | None) -> _Started:
    """A cluster that DASK_SCHEDULER_ADDRESS names, else one of this machine for as long as it is needed."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise _missing("dask", "Dask") from error
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if address:
        try:
            client = Client(address)
        except (OSError, ValueError) as error:
            raise _no_answer("DASK_SCHEDULER_ADDRESS", error) from error
        with client:
            yield sum(client.ncores().values()), {"client": client}
        return
    count = jobs or joblib.cpu_count()
    # A run needs far less than its share of memory, but a share of a small machine is less than torch needs.
    # Ctrl-C reaches the workers too; they inherit that they ignore it, and are ended by the cluster.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        )
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)
    with cluster, Client(cluster) as client:
        yield count, {"client": client}


BACKENDS: dict[str, Callable[[int | None], AbstractContextManager[tuple[int, dict[str, Any]]]]] = {
    "loky": _loky,
    "ray": _ray,
    "dask": _dask,
}


def _missing(extra: str, name: str) -> ConfigurationError:
    return ConfigurationError(f"--backend {extra} needs {name}: pip install 'diffstruct[{extra}]'")


def _knock(address: str) -> None:
    """Refuse a Ray address that does not answer; Ray itself would try for ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # "auto" and "local" mean something to Ray
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_answer("RAY_ADDRESS", error) from error


def _no_answer(variable: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"expected a cluster at {variable}={os.environ.get(variable)!r}, but: {_line(error)}; "
        "start it, or unset the variable to use this machine"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
