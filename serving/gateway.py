"""The gateway: OpenAI's API in front of whatever workers have plugged in. Holds nothing that a restart would lose.

Gateway(config)            routes may be added to `.app`, and guards to `.guards`, before it starts
await gateway.start()      listens; `.port` is where
await gateway.stop()       takes no more requests, lets those under way end, lets workers go
"""

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from serving import asked as requests
from serving import keys, wire
from serving.asked import Asked
from serving.audit import Audit
from serving.config import ApiKey, GatewayConfig
from serving.door import Door
from serving.errors import ApiError, bad_request, no_such_model
from serving.exchange import Exchange
from serving.links import Links
from serving.metrics import Metrics
from serving.openapi import document
from serving.pool import Registry

log = logging.getLogger("serving.gateway")

Guard = Callable[[Asked, ApiKey], Awaitable[None]]
"""Looks at a request before any worker does, and raises ApiError to refuse it (moderation)."""

CLIENT_CLOSED = 499
"""What the audit log says of a client that went away; nobody receives it."""


class Gateway:
    """One gateway. Several may run; each knows its own workers' connections and nothing of the others."""

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.clock = time.monotonic
        self.started_at = self.clock()
        self.registry = Registry(self.clock, config.queue_limit)
        self.metrics = Metrics()
        self.metrics.watch(self.registry)
        self.links = Links(config, self.registry, self.clock, self.metrics.refused.inc)
        self.limits = keys.Limits(self.clock)
        self.audit = Audit(config)
        self.door = Door(config.connection_limit, config.client_seconds)
        self.guards: list[Guard] = []
        self.stopping = False
        self.port = 0
        self._serial = itertools.count()
        self._id = secrets.token_hex(6)
        self.app = web.Application(client_max_size=int(config.body_megabytes * 1e6), middlewares=[self._errors])
        self.app.router.add_get("/health", self._health)
        self.app.router.add_get("/metrics", self._metrics)
        self.app.router.add_get("/openapi.json", self._openapi)
        self.app.router.add_get("/v1/models", self._models)
        self.app.router.add_get("/v1/models/{model:.+}", self._model)
        for endpoint in requests.ENDPOINTS:
            self.app.router.add_post(f"/v1/{endpoint}", self._asker(endpoint))
        self.app.router.add_get(wire.PATH, self.links.serve)
        self._runner: web.AppRunner | None = None
        self._watches: list[asyncio.Future[None]] = []

    async def start(self) -> None:
        """Listen; OSError where the port is taken."""
        config = self.config
        self._runner = web.AppRunner(
            self.app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=75.0,
            lingering_time=1.0,
            shutdown_timeout=1.0,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, config.host, config.port, backlog=4096)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.started_at = self.clock()
        assert self._runner.server is not None
        self._watches = [
            asyncio.ensure_future(self.links.watch()),
            asyncio.ensure_future(self.door.watch(self._runner.server)),
        ]
        log.info("gateway listens", extra={"host": config.host, "port": self.port})

    async def stop(self) -> None:
        """Refuse new requests, let those under way end for a while, then close everything."""
        self.stopping = True
        deadline = self.clock() + self.config.drain_seconds
        while self.clock() < deadline and any(link.attempts for link in self.links.by_member.values()):
            await asyncio.sleep(0.02)
        for watch in self._watches:
            watch.cancel()
        self.links.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self.audit.close()
        log.info("gateway stopped", extra={"port": self.port})

    def headers(self, answer_id: str) -> dict[str, str]:
        return {"X-Request-Id": answer_id, "Cache-Control": "no-cache"}

    def key_of(self, request: web.Request) -> ApiKey:
        """Who asks; ApiError 401 where keys are needed and this is none."""
        if not self.config.keys:
            return keys.ANYBODY
        given = keys.bearer(request.headers.get("Authorization"))
        found = keys.find(self.config.keys, given) if given else None
        if found is None:
            log.warning("request refused", extra={"reason": "wrong API key", "peer": request.remote})
            raise ApiError(401, "invalid_api_key", "The API key is missing or wrong.")
        return found

    def visible_models(self, key: ApiKey) -> list[str]:
        """Models with a connected worker that `key` may use."""
        return sorted(
            model
            for model, pool in self.registry.pools.items()
            if pool.members and pool.tenant in ("", key.tenant) and keys.allows(key.models, model)
        )

    def _asker(self, endpoint: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def ask(request: web.Request) -> web.StreamResponse:
            return await self._ask(endpoint, request)

        return ask

    async def _ask(self, endpoint: str, request: web.Request) -> web.StreamResponse:
        key = self.key_of(request)
        if self.stopping:
            raise ApiError(503, "stopping", "This gateway is stopping; ask again.", retry_after=1.0)
        self.limits.admit(key)
        try:
            async with asyncio.timeout(self.config.client_seconds):
                raw = await request.read()
        except TimeoutError:
            raise ApiError(408, "request_timeout", "The request did not come in time.") from None
        asked = requests.read(endpoint, raw, request.headers.get("X-Session-Id", ""))
        for guard in self.guards:
            await guard(asked, key)
        prefix = "chatcmpl" if endpoint == "chat/completions" else "cmpl"
        exchange = Exchange(self, request, asked, key, f"{prefix}-{self._id}{next(self._serial):08x}")
        return await self._run(exchange)

    async def _run(self, exchange: Exchange) -> web.StreamResponse:
        """Answer, and write down how it went however it went."""
        code = "client_closed"
        counted = self.metrics.open.labels(self._shown(exchange.asked.model))
        counted.inc()
        try:
            response = await exchange.run()
            code = "ok" if response.status < 400 else "refused_by_engine"
            return response
        except ApiError as failure:
            code = failure.code
            told = await exchange.fail(failure)
            if told is None:
                raise
            return told
        except ConnectionError:
            # The client went away while it was being written to; there is nobody to answer.
            return exchange.response or web.Response(status=CLIENT_CLOSED)
        finally:
            counted.dec()
            self._note(exchange, code)

    def _shown(self, model: str) -> str:
        """The model as metrics name it; what a client may write there is not theirs to keep."""
        return model if model in self.registry.pools else "unknown"

    def _note(self, exchange: Exchange, code: str) -> None:
        answer, key, metrics = exchange.answer, exchange.key, self.metrics
        model = self._shown(answer.model)
        metrics.requests.labels(model, key.name, code).inc()
        metrics.duration.labels(model, key.name).observe(self.clock() - exchange.began)
        metrics.tokens.labels(model, key.name, "prompt").inc(answer.prompt_tokens)
        metrics.tokens.labels(model, key.name, "completion").inc(answer.tokens)
        first = exchange.first_token_at
        if answer.tokens and first is not None and self.clock() > first:
            metrics.speed.labels(model, key.name).observe(answer.tokens / (self.clock() - first))
        self.limits.spend(key, answer.prompt_tokens + answer.tokens)
        self.audit.write(exchange, code)

    async def _health(self, request: web.Request) -> web.Response:
        now = self.clock()
        models = {
            model: sum(member.ready(now) for member in pool.members) for model, pool in self.registry.pools.items()
        }
        state = "stopping" if self.stopping else "ok"
        body: dict[str, Any] = {"status": state, "workers": len(self.links.by_member)}
        if not self.config.keys:
            body["ready_workers"] = models
        return web.json_response(body, status=503 if self.stopping else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        body = self.metrics.render()
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(document(with_keys=bool(self.config.keys)))

    async def _models(self, request: web.Request) -> web.Response:
        models = [self._describe(model) for model in self.visible_models(self.key_of(request))]
        return web.json_response({"object": "list", "data": models})

    async def _model(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        if model not in self.visible_models(self.key_of(request)):
            raise no_such_model(model)
        return web.json_response(self._describe(model))

    def _describe(self, model: str) -> dict[str, Any]:
        owner = self.registry.pools[model].tenant or "vlaunch"
        return {"id": model, "object": "model", "created": 0, "owned_by": owner}

    @web.middleware
    async def _errors(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Every failure in OpenAI's form."""
        self.door.note(request.protocol)
        try:
            return await handler(request)
        except ApiError as failure:
            return response_of(failure)
        except (HttpProcessingError, web.RequestPayloadError) as failure:
            return response_of(bad_request(f"The body cannot be decoded: {' '.join(str(failure).split())}"))
        except web.HTTPException as failure:
            if failure.status < 400:
                raise
            code = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(failure.status, "refused")
            answer = response_of(ApiError(failure.status, code, failure.reason))
            if "Allow" in failure.headers:
                answer.headers["Allow"] = failure.headers["Allow"]
            return answer


def response_of(failure: ApiError) -> web.Response:
    headers = {}
    if failure.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(failure.retry_after)))
    if failure.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(status=failure.status, body=failure.body(), content_type="application/json", headers=headers)
