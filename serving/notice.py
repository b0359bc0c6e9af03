"""Whether whoever gives the machine has said that it will take it away: asks the metadata server of a cloud, as that
cloud wants to be asked, or any address that answers 200 from then on.
"""

import asyncio
import json
from collections.abc import Mapping

import aiohttp

_ANSWER_SECONDS = 5.0
_AZURE_SECONDS = 130.0
"""Azure begins to look only when it is asked for the first time."""


async def announced(session: aiohttp.ClientSession, where: str, environment: Mapping[str, str]) -> bool:
    """`where` is one of config.CLOUDS or an address. A server that does not answer has announced nothing."""
    ask = {"aws": _aws, "gcp": _google, "azure": _azure}.get(where)
    try:
        if ask is None:
            return await _get(session, where) is not None
        return await ask(session, environment)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return False


async def _aws(session: aiohttp.ClientSession, environment: Mapping[str, str]) -> bool:
    server = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
    lasting = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = await _get(session, f"{server}/latest/api/token", lasting, method="PUT")
    headers = {"X-aws-ec2-metadata-token": token.decode()} if token else {}
    return await _get(session, f"{server}/latest/meta-data/spot/instance-action", headers) is not None


async def _google(session: aiohttp.ClientSession, environment: Mapping[str, str]) -> bool:
    server = environment.get("GCE_METADATA_HOST") or "metadata.google.internal"
    url = f"http://{server}/computeMetadata/v1/instance/preempted"
    answer = await _get(session, url, {"Metadata-Flavor": "Google"})
    return answer is not None and answer.strip().upper() == b"TRUE"


async def _azure(session: aiohttp.ClientSession, environment: Mapping[str, str]) -> bool:
    server = environment.get("VLAUNCH_AZURE_METADATA") or "http://169.254.169.254"
    url = f"{server}/metadata/scheduledevents?api-version=2020-07-01"
    answer = await _get(session, url, {"Metadata": "true"}, seconds=_AZURE_SECONDS)
    events = json.loads(answer or b"{}").get("Events", ())
    return any(event.get("EventType") in ("Preempt", "Terminate") for event in events)


async def _get(
    session: aiohttp.ClientSession,
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    seconds: float = _ANSWER_SECONDS,
) -> bytes | None:
    """The body of a 200, else None."""
    async with asyncio.timeout(seconds), session.request(method, url, headers=headers) as response:
        body = await response.read()
        return body if response.status == 200 else None
