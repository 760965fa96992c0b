"""Real servers on loopback: for the tests, the demo and the benchmarks.

Each is a context manager that ends what it started, by pid, also when the start fails half-way.
"""

from tests.servers.access_log import Request
from tests.servers.nginx import Nginx
from tests.servers.ports import free_port
from tests.servers.process import ServerError
from tests.servers.sshd import Sshd
from tests.servers.upstream import GitLfsUpstream

__all__ = ["GitLfsUpstream", "Nginx", "Request", "ServerError", "Sshd", "free_port"]
