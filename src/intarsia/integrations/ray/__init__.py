"""Trainings on a Ray cluster: `with RayEngine.connected("host:6379") as engine: Vault.open(path, engine=engine)`."""

from intarsia.errors import require

require("ray", "ray")

from intarsia.integrations.ray.engine import RayEngine  # noqa: E402 - only once ray is known to be there

__all__ = ["RayEngine"]
