"""An engine without a model, for measuring what is in front of it: `python benchmarks/dummy_engine.py PORT [--vllm]`.

It counts: " t0", " t1", " t2" and so on, up to max_tokens, and goes on counting where a half answer ends, as a real
engine would. A first message with `itl=20` has 20 ms between tokens. With --vllm it gives and takes token ids.
"""

import argparse
import asyncio
import json
import re
import time
from typing import Any

import uvloop
from aiohttp import web

MODEL = "dummy"
PROMPT_IDS = [101, 102, 103]


class Dummy:
    def __init__(self, *, vllm: bool) -> None:
        self.vllm = vllm
        self.running = 0

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        messages = body["messages"]
        last = messages[-1]
        said = str(last.get("content")).split() if last.get("role") == "assistant" else []
        words = sum(len(str(message.get("content")).split()) for message in messages)
        return await self.answer(request, body, str(messages[0].get("content")), len(said), words, chat=True)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = body["prompt"]
        if isinstance(prompt, list):
            said = len(prompt) - len(PROMPT_IDS)
            return await self.answer(request, body, f"itl={max(prompt[:1])}", said, len(prompt), chat=False)
        return await self.answer(
            request, body, prompt, len(re.findall(r" t\d+", prompt)), len(prompt.split()), chat=False
        )

    async def answer(
        self, request: web.Request, body: dict[str, Any], text: str, start: int, prompt_tokens: int, *, chat: bool
    ) -> web.StreamResponse:
        limit = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        found = re.search(r"itl=([0-9.]+)", text)
        pause = float(found.group(1)) / 1000 if found else 0.0
        self.running += 1
        try:
            if body.get("stream"):
                return await self.stream(request, body, range(start, start + limit), pause, prompt_tokens, chat=chat)
            await asyncio.sleep(pause * limit)
            return web.json_response(self.document(body, range(start, start + limit), prompt_tokens, chat=chat))
        finally:
            self.running -= 1

    def document(self, body: dict[str, Any], numbers: range, prompt_tokens: int, *, chat: bool) -> dict[str, Any]:
        text = "".join(f" t{number}" for number in numbers)
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choices = [{"index": index, **said, "finish_reason": "length"} for index in range(body.get("n") or 1)]
        usage = usage_of(prompt_tokens, len(numbers))
        kind = "chat.completion" if chat else "text_completion"
        return {"id": "x", "object": kind, "created": 1, "model": MODEL, "choices": choices, "usage": usage}

    async def stream(
        self,
        request: web.Request,
        body: dict[str, Any],
        numbers: range,
        pause: float,
        prompt_tokens: int,
        *,
        chat: bool,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        kind = "chat.completion.chunk" if chat else "text_completion"
        head = {"id": "x", "object": kind, "created": int(time.time()), "model": MODEL}
        with_ids = self.vllm and body.get("return_token_ids")
        at = time.perf_counter()
        for place, number in enumerate(numbers):
            at += pause
            if pause and (left := at - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            text = f" t{number}"
            choice: dict[str, Any] = {"index": 0, "finish_reason": None}
            choice |= {"delta": {"content": text}} if chat else {"text": text}
            chunk = {**head, "choices": [choice]}
            if with_ids:
                choice["token_ids"] = [1000 + number]
                chunk["usage"] = usage_of(prompt_tokens, place + 1)
                chunk |= {"prompt_token_ids": PROMPT_IDS} if place == 0 and chat else {}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        last: dict[str, Any] = {"index": 0, "finish_reason": "length", **({"delta": {}} if chat else {"text": ""})}
        tail = b"data: " + json.dumps({**head, "choices": [last]}).encode() + b"\n\n"
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {**head, "choices": [], "usage": usage_of(prompt_tokens, len(numbers))}
            tail += b"data: " + json.dumps(usage).encode() + b"\n\n"
        await response.write(tail + b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def embed(self, request: web.Request) -> web.Response:
        await request.read()
        entry = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
        return web.json_response({"object": "list", "model": MODEL, "data": [entry], "usage": usage_of(2, 0)})

    async def models(self, request: web.Request) -> web.Response:
        model = {"id": MODEL, "object": "model", "created": 1, "owned_by": "vllm" if self.vllm else "nobody"}
        return web.json_response({"object": "list", "data": [model]})

    async def well(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "model_path": MODEL, "served_model_name": MODEL, "version": "0"})

    async def metrics(self, request: web.Request) -> web.Response:
        labels = f'{{model_name="{MODEL}"}}'
        text = f"vllm:num_requests_running{labels} {self.running}\nvllm:num_requests_waiting{labels} 0\n"
        return web.Response(text=text)


def usage_of(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--vllm", action="store_true")
    arguments = parser.parse_args()
    dummy = Dummy(vllm=arguments.vllm)
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", dummy.chat)
    app.router.add_post("/v1/completions", dummy.complete)
    app.router.add_post("/v1/embeddings", dummy.embed)
    app.router.add_get("/v1/models", dummy.models)
    app.router.add_get("/metrics", dummy.metrics)
    for path in ("/health", "/version", "/", "/server_info", "/model_info", "/get_model_info", "/get_server_info"):
        app.router.add_get(path, dummy.well)
    uvloop.install()
    # A thousand streams begin at once; connections beyond the backlog are only tried again a second later.
    web.run_app(
        app, host="127.0.0.1", port=arguments.port, backlog=4096, access_log=None, print=None, handler_cancellation=True
    )


if __name__ == "__main__":
    main()
