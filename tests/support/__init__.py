"""What tests of several folders share: gateways, clients, servers and tables of their own."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the project
