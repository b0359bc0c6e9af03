"""The libraries that speak to one bucket: boto3 for what is small or conditional, obstore for bulk, told by what is
known of the server how to prove that bytes arrived whole.
"""

import functools
import re
from datetime import timedelta
from typing import Any

import boto3
import botocore.exceptions
import stamina.instrumentation
from botocore.config import Config
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store as BulkStore

from checkpoints.stores import s3_errors
from checkpoints.stores.protocol import Transfer

_WRONG_CRC = "AAAAAAAAAAA="
"""A CRC64NVME of zero, which no body of ours has."""

stamina.instrumentation.set_on_retry_hooks([])  # it would print a bare word for every retry; what fails is said once


class Clients:
    """Those of one bucket, shared by every view of it."""

    def __init__(self, bucket: str, transfer: Transfer) -> None:
        self.bucket = bucket
        self.transfer = transfer
        session = boto3.Session()
        if session.get_credentials() is None:
            raise botocore.exceptions.NoCredentialsError
        region = session.region_name or "us-east-1"
        probe: Any = session.client("s3", region_name=region)
        self.custom = not re.search(r"\.amazonaws\.com(\.cn)?$", probe.meta.endpoint_url)
        """Whether the server is not Amazon's."""
        self._knows_crc64: bool | None = None
        """None until a write has to know."""
        self._session = session
        self.client: Any = session.client(
            "s3",
            region_name=region,
            config=Config(
                s3={"addressing_style": "path"} if self.custom else {},
                retries={"mode": "standard", "total_max_attempts": 10},
                connect_timeout=10,
                read_timeout=transfer.idle_seconds,
                max_pool_connections=32,
            ),
        )
        self.client.meta.events.register_first("needs-retry.s3", _refuse_blind_redirect)

    @functools.cached_property
    def region(self) -> str:
        """The bucket's own: boto3 follows a bucket there, others have to be told."""
        configured: str = self.client.meta.region_name
        if self.custom:
            return configured
        headers = self.client.head_bucket(Bucket=self.bucket)["ResponseMetadata"]["HTTPHeaders"]
        return str(headers.get("x-amz-bucket-region", configured))

    @functools.cached_property
    def reader(self) -> BulkStore:
        return self._bulk()

    def writer(self, key: str) -> BulkStore:
        """For the parts of the object `key`; the server is asked to verify the checksum of each."""
        return self._verified if self._verifies_crc64(key) else self._signed

    @functools.cached_property
    def _verified(self) -> BulkStore:
        """CRC64NVME in a header that is signed; the body is not hashed once more for its signature."""
        return self._bulk(checksum_algorithm="CRC64NVME", unsigned_payload=True)

    @functools.cached_property
    def _signed(self) -> BulkStore:
        """SHA-256, which every server knows, as checksum and signature: three times the CPU."""
        return self._bulk(checksum_algorithm="SHA256")

    def _verifies_crc64(self, key: str) -> bool:
        """Whether the server refuses a body that its CRC64NVME does not fit. Amazon's does; of any other one byte with
        a wrong checksum is tried, once: who does not know the checksum would keep whatever arrives."""
        if self._knows_crc64 is None:
            self._knows_crc64 = not self.custom or self._refuses_wrong_crc64(f"{key}.probe")
        return self._knows_crc64

    def _refuses_wrong_crc64(self, key: str) -> bool:
        try:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=b"?", ChecksumCRC64NVME=_WRONG_CRC)
        except botocore.exceptions.ClientError as failure:
            if s3_errors.damaged(failure):
                return True
            if s3_errors.code(failure) in ("InvalidRequest", "InvalidArgument", "NotImplemented"):
                return False
            raise
        self.client.delete_object(Bucket=self.bucket, Key=key)
        return False

    def _bulk(self, **more: Any) -> BulkStore:
        return BulkStore(
            self.bucket,
            region=self.region,
            endpoint=self.client.meta.endpoint_url if self.custom else None,
            virtual_hosted_style_request=False,
            credential_provider=Boto3CredentialProvider(self._session),
            client_options={
                "allow_http": True,
                "connect_timeout": timedelta(seconds=10),
                "read_timeout": timedelta(seconds=self.transfer.idle_seconds),
                "timeout": timedelta(seconds=10 * self.transfer.idle_seconds),
            },
            retry_config={"max_retries": 12, "retry_timeout": timedelta(seconds=self.transfer.retry_seconds)},
            **more,
        )


def _refuse_blind_redirect(response: Any, operation: Any, **_: object) -> None:
    """A redirect that names no region is an error: boto3 would ask the bucket where it lies, be redirected, and ask
    again, for ever."""
    if response is None or response[0].status_code not in (301, 302, 307, 308):
        return
    answer = response[1]
    named = answer.get("Error", {}).get("Region") or "x-amz-bucket-region" in answer["ResponseMetadata"]["HTTPHeaders"]
    if not named:
        raise botocore.exceptions.ClientError(answer, operation.name)
