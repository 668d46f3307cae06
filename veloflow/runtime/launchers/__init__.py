"""Launchers: slaves on the cluster engines that people already run, one small file an engine."""

from veloflow.runtime.launchers.base import Launcher, Reach
from veloflow.runtime.launchers.registry import known_launchers, open_launcher

__all__ = ["Launcher", "Reach", "known_launchers", "open_launcher"]
