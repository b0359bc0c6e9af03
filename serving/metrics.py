"""What Prometheus is told of a gateway, per model and key. Names are documented in docs/serving.md."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.pool import Registry

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


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
        self.gap = histogram("failover_gap_seconds", "From a worker's loss to the next token.")
        self.refused = Gauge("vlaunch_refused_registrations", "Workers refused.", registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"vlaunch_{name}", text, ("model",), registry=self.registry)

        self.workers = gauge("workers", "Workers that take requests.")
        self.in_flight = gauge("in_flight", "Requests at workers.")
        self.waiting = gauge("waiting", "Requests that wait for a worker.")
        self.speed = gauge("tokens_per_second", "Tokens a second of all workers of the model, as they say.")

    def render(self, registry: Registry, refused: int) -> bytes:
        """The text of /metrics, with the state of the moment."""
        now = registry.clock()
        self.refused.set(refused)
        for model, pool in registry.pools.items():
            self.workers.labels(model).set(sum(member.ready(now) for member in pool.members))
            self.in_flight.labels(model).set(sum(member.in_flight for member in pool.members))
            self.waiting.labels(model).set(pool.waiting_count + len(pool.moved))
            self.speed.labels(model).set(sum(member.tokens_per_second for member in pool.members))
        return generate_latest(self.registry)
