"""The built-in demo backend: deterministic text at a steady pace, and HTTP broken on request.

Start reading at routes.py (what it answers), then connection.py (how a request is taken in) and
faults.py (what can be made to go wrong).
"""

from penstock.proxy.demo.cli import add_arguments, run
from penstock.proxy.demo.options import DemoOptions
from penstock.proxy.demo.server import Server, start

__all__ = ["DemoOptions", "Server", "add_arguments", "run", "start"]
