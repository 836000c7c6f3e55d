"""Runs before any test module is imported, and so before grpc is."""

from vaultd.hosts.transport import restrict_transport

restrict_transport()


def pytest_collection_modifyitems(config, items):
    """Leave out, inside an Envoy, what is about the other host."""
    import harness

    if harness.HOST == "envoy":
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("grpc_host")])
        items[:] = [item for item in items if not item.get_closest_marker("grpc_host")]
