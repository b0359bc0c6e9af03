"""What Prometheus is told of a gateway, per model and key. Names are documented in docs/serving.md."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from serving.pool import Registry

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

SPEEDS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0)


class Metrics:
    """Counters of one gateway; a registry of its own, so that two gateways in a process do not add up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("model", "key")

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(f"vlaunch_{name}", text, (*labels, *more), registry=self.registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"vlaunch_{name}", text, labels, registry=self.registry, buckets=BUCKETS)

        self.requests = counter("requests", "Requests answered, by what came of them.", "code")
        self.tokens = counter("tokens", "Tokens of prompts and completions.", "kind")
        self.failovers = counter("failovers", "Answers that went on on another worker.")
        self.carried = counter("carried_tokens", "Tokens already sent when an answer went on elsewhere.")
        self.retries = counter("retries", "Requests begun again elsewhere before their first token.")
        self.first_token = histogram("first_token_seconds", "From the request to the first token sent.")
        self.duration = histogram("request_seconds", "From the request to the last byte.")
        self.speed = Histogram(
            "vlaunch_answer_tokens_per_second", "Of one answer.", labels, registry=self.registry, buckets=SPEEDS
        )
        self.refused = Counter("vlaunch_refused_registrations", "Workers refused.", registry=self.registry)
        self.open = Gauge(
            "vlaunch_open_requests", "Requests that wait or are being answered.", ["model"], registry=self.registry
        )
        self.gap = histogram("failover_gap_seconds", "From a worker's loss to the next token.")

    def watch(self, pools: Registry) -> None:
        """Tell of the workers as well, as they are at the moment of asking."""
        self.registry.register(Workers(pools))

    def render(self) -> bytes:
        """The text of /metrics."""
        return generate_latest(self.registry)


class Workers:
    """Gauges made when they are asked for, so that a worker that is gone is gone from them."""

    def __init__(self, pools: Registry) -> None:
        self.pools = pools

    def collect(self) -> Iterator[Metric]:
        now = self.pools.clock()
        ready = GaugeMetricFamily("vlaunch_workers", "Workers that take requests.", labels=("model",))
        waiting = GaugeMetricFamily("vlaunch_waiting", "Requests that wait for a worker.", labels=("model",))
        for model, pool in self.pools.pools.items():
            ready.add_metric((model,), sum(member.ready(now) for member in pool.members))
            waiting.add_metric((model,), pool.waiting_count + len(pool.moved))
        in_flight = GaugeMetricFamily("vlaunch_in_flight", "Requests at a worker.", labels=("worker",))
        behind = GaugeMetricFamily("vlaunch_engine_waiting", "Requests its engine has not begun.", labels=("worker",))
        speed = GaugeMetricFamily("vlaunch_tokens_per_second", "As the worker says.", labels=("worker",))
        for member in self.pools.members:
            in_flight.add_metric((member.name,), member.in_flight)
            behind.add_metric((member.name,), member.waiting)
            speed.add_metric((member.name,), member.tokens_per_second)
        yield from (ready, waiting, in_flight, behind, speed)
