"""Runs before any test module is imported, and so before grpc is."""

from hypothesis import HealthCheck, settings

from vaultd.hosts.transport import restrict_transport

restrict_transport()
# How long an example takes says how busy the machine is.
settings.register_profile("whatever the machine does", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("whatever the machine does")


def pytest_collection_modifyitems(config, items):
    """Leave out, inside an Envoy, what is about the other host."""
    import harness

    if harness.HOST == "envoy":
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("grpc_host")])
        items[:] = [item for item in items if not item.get_closest_marker("grpc_host")]
