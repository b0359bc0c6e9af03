"""What S3 and its two libraries say when they fail, as a store's errors: one sentence each, with what to do next."""

import contextlib
import re
from collections.abc import Iterator

import botocore.exceptions
from obstore.exceptions import BaseError

from checkpoints.stores.protocol import StoreError, StoreFull, StoreRefused

BOTH = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, BaseError)
"""What either library raises."""

_REGION = "the bucket is in another region; set AWS_DEFAULT_REGION to its own"
_REFUSALS = {
    "NoSuchBucket": "there is no such bucket; create it, or correct the name",
    "InvalidAccessKeyId": "the access key is not known there; check AWS_ACCESS_KEY_ID or the profile",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY or the profile",
    "ExpiredToken": "the credentials have expired; sign in again",
    "InvalidToken": "the session token is not valid; sign in again, or unset AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it (timedatectl set-ntp true) and try again",
    "AccessDenied": "the credentials do not allow it; a run takes s3:ListBucket, s3:GetObject, s3:PutObject, "
    "s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucketMultipartUploads",
    "AllAccessDisabled": "all access to the bucket is disabled; ask its owner, or name another",
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "PermanentRedirect": "it sends us elsewhere; set AWS_DEFAULT_REGION to the bucket's region, or AWS_ENDPOINT_URL to "
    "the server's own address",
    "InvalidBucketName": "that is not a bucket's name (3 to 63 small letters, digits, dots and hyphens); correct it",
}
for _status in ("301", "302", "307", "308", "TemporaryRedirect"):
    _REFUSALS[_status] = _REFUSALS["PermanentRedirect"]
_REFUSALS |= {"403": _REFUSALS["AccessDenied"]}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}
_DAMAGED = {"BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest", "XAmzContentChecksumMismatch", "IncompleteBody"}
_AGAIN = re.compile(r"5\d\d|InternalError|SlowDown|ServiceUnavailable|RequestTimeout|Throttling\w*|OperationAborted")
"""What was tried again before it was given up."""


@contextlib.contextmanager
def failing(uri: str, done: str) -> Iterator[None]:
    """Translate the libraries' words; a missing object stays FileNotFoundError."""
    where = f"The store {uri} could not be {done}"
    try:
        yield
    except FileNotFoundError as failure:
        if code(failure) == "NoSuchBucket":
            raise StoreRefused(f"{where}: {_REFUSALS['NoSuchBucket']}.") from None
        raise FileNotFoundError(where) from None
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError):
        raise StoreRefused(
            f"{where}: there are no AWS credentials; run `aws configure`, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY."
        ) from None
    except botocore.exceptions.ProfileNotFound as failure:
        raise StoreRefused(f"{where}: {failure}; correct AWS_PROFILE, or run `aws configure`.") from None
    except BOTH as failure:
        raise _translated(failure, where) from None


def code(failure: BaseException) -> str:
    """S3's word for what went wrong, or the HTTP status; empty where no answer came."""
    if isinstance(failure, botocore.exceptions.ClientError):
        return str(failure.response.get("Error", {}).get("Code", ""))
    if isinstance(failure, botocore.exceptions.ParamValidationError) and "bucket name" in str(failure):
        return "InvalidBucketName"  # boto3 sees that before it asks
    text = str(failure)
    if "redirect without LOCATION" in text:
        return "301"
    found = re.search(r"<Code>([\w.]+)</Code>", text) or re.search(r"status code: (\d{3})", text)
    return found[1] if found else ""


def broke_off(failure: Exception) -> bool:
    """Whether an answer had begun and did not arrive whole."""
    return isinstance(failure, BaseError) and not code(failure)


def damaged(failure: Exception) -> bool:
    """Whether S3 refused a body for its checksum."""
    return code(failure) in _DAMAGED


def in_conflict(failure: Exception) -> bool:
    """S3 could not decide between two who create at once; it asks to try again."""
    return isinstance(failure, botocore.exceptions.ClientError) and code(failure) in (
        "ConditionalRequestConflict",
        "OperationAborted",
    )


def _translated(failure: Exception, where: str) -> Exception:
    """The same as one of a store's errors. The libraries' own text stays out: it may quote what was signed."""
    word = code(failure)
    if word in ("NoSuchKey", "404"):
        return FileNotFoundError(where)
    if word in _REFUSALS:
        region = _region(failure)
        if region and (_REFUSALS[word] == _REGION or _REFUSALS[word] == _REFUSALS["PermanentRedirect"]):
            return StoreRefused(f"{where}: the bucket is in {region}; set AWS_DEFAULT_REGION={region}.")
        return StoreRefused(f"{where}: {_REFUSALS[word]}.")
    if word in _FULL:
        return StoreFull(
            f"{where}: no space is left there; free some, or name another place with --set checkpoints.store."
        )
    if damaged(failure):
        return StoreError(f"{where}: what arrived is not what was sent ({word}); it was not kept.")
    if _AGAIN.fullmatch(word):
        return StoreError(f"{where}: it answered {word}, again and again; look at the server, or try later.")
    if word:
        return StoreError(f"{where}: it answered {word}; its documentation of that word says what to change.")
    return StoreError(
        f"{where}: it cannot be reached, or its answers break off, however often it is tried; check the network."
    )


def _region(failure: Exception) -> str:
    """The region the answer names as the bucket's own."""
    if isinstance(failure, botocore.exceptions.ClientError):
        answer = failure.response
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        found = str(answer.get("Error", {}).get("Region", "") or headers.get("x-amz-bucket-region", ""))
    else:
        match = re.search(r"<Region>([^<]*)</Region>", str(failure))
        found = match[1] if match else ""
    return found if re.fullmatch(r"[a-z0-9-]+", found) else ""
