"""What is different about SkyPilot on the test cluster, as a plugin of its server. Every line is here because of the
machine, not because of what is tested; docs/skypilot.md says the same.
"""

from sky.server import plugins


class TestCluster(plugins.BasePlugin):
    """Named in the test server's plugins.yaml, beside vlaunch's own."""

    def install(self, extension_context: plugins.ExtensionContext) -> None:
        # The server forks a worker while another of its threads imports this, and the worker is left with half of it
        # (seen: "module 'networkx' has no attribute 'topological_generations'"). On a loaded machine that is likely.
        import networkx  # noqa: F401
        from sky import clouds
        from sky.backends import backend_utils
        from sky.jobs import utils

        # Before SkyPilot calls a machine lost it asks two public addresses whether the network is there. Nothing
        # here may leave the machine; the API server itself answers.
        backend_utils._TEST_IP_LIST = ["http://127.0.0.1:46580/api/health"]
        # Slurm has no spot as SkyPilot sees it. Here a job of a `spot-…` partition is as preemptible as one can be.
        clouds.Slurm._CLOUD_UNSUPPORTED_FEATURES.pop(clouds.CloudImplementationFeatures.SPOT_INSTANCE, None)
        # SkyPilot looks every 15 s how a job is. Machines that live for seconds are looked at more often; but on Slurm
        # a look is a new Python on the machine that loads SkyPilot, a second of CPU.
        utils.JOB_STATUS_CHECK_GAP_SECONDS = 5
        utils.JOB_STARTED_STATUS_CHECK_GAP_SECONDS = 1
