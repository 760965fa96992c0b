"""Make a bare Debian host an edge, and take away again what was put there.

What a working edge has (`wanted.py`) is compared with what is there (`facts.py`); the difference is a plan of steps
(`plan.py`) that is shown before it is done (`act.py`) over a connection as an administrator (`connection.py`).
"""

from mirrortools.provision.act import Provisioner, prove, push_key, rotate, signer_of
from mirrortools.provision.connection import Administrator, HostKeys, connect
from mirrortools.provision.wanted import Setting

__all__ = ["Administrator", "HostKeys", "Provisioner", "Setting", "connect", "prove", "push_key", "rotate", "signer_of"]
