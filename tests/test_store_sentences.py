"""What a person reads when a bucket refuses: one plain sentence that names the store, what failed and what to do next,
and quotes no secret. The answers are S3's and Google's own, given by the fault proxy in front of real servers.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from checkpoints.stores import Store, StoreError, StoreFull, StoreRefused, Transfer, open_store
from tests import servers
from tests.fault_proxy import FaultProxy
from tests.servers import Server

IMPATIENT = Transfer(idle_seconds=4, retry_seconds=2)
MEGABYTE = 1 << 20


def large() -> Iterator[memoryview]:
    """Enough for a write in parts."""
    return (memoryview(bytes(MEGABYTE)) for _ in range(17))


ASKED: dict[str, tuple[str, Callable[[Store], object]]] = {
    "list": ("listed", lambda store: list(store.list())),
    "read": (r"read \(there\)", lambda store: store.read("there")),
    "read a part": (r"read \(there\)", lambda store: store.read("there", 1, 2)),
    "write": (r"written \(x\)", lambda store: store.write("x", [b"1"])),
    "write in parts": (r"written \(x\)", lambda store: store.write("x", large())),
    "create": (r"written \(x\)", lambda store: store.create("x", b"1")),
    "delete": ("deleted from", lambda store: store.delete(["there"])),
}
"""What is asked of a store, and the word for it in a sentence."""


def sentence(store: Store, ask: str, kind: type[StoreError]) -> str:
    """What `ask` of the store fails with, after what every such sentence has in common."""
    done, call = ASKED[ask]
    with pytest.raises(kind) as failed:
        call(store)
    said = str(failed.value)
    why = re.fullmatch(rf"The store {re.escape(store.uri)} could not be {done}: (.*)\.", said)
    assert why, f"{ask}: {said}"
    assert "\n" not in said
    assert not re.search(f"{servers.SECRET_KEY}|<[A-Z]|AWSAccessKeyId|Traceback", said), said
    return why[1]


_ELSEWHERE = (
    "it sends us elsewhere; set AWS_DEFAULT_REGION to the bucket's region, or AWS_ENDPOINT_URL to the server's "
    "own address"
)
_ANOTHER_REGION = "the bucket is in another region; set AWS_DEFAULT_REGION to its own"
S3_SAYS = {
    "301 PermanentRedirect <Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint><Bucket>b</Bucket>": _ELSEWHERE,
    "307 TemporaryRedirect": _ELSEWHERE,
    "400 IllegalLocationConstraintException": _ANOTHER_REGION,
    "400 AuthorizationHeaderMalformed": _ANOTHER_REGION,
    "400 AuthorizationHeaderMalformed <Region>eu-west-1</Region>": "the bucket is in eu-west-1; set "
    "AWS_DEFAULT_REGION=eu-west-1",
    "400 InvalidToken <Token-0>FQoGZXIvYXdzE</Token-0>": "the session token is not valid; sign in again, or unset "
    "AWS_SESSION_TOKEN",
    "400 ExpiredToken <Token-0>FQoGZXIvYXdzE</Token-0>": "the credentials have expired; sign in again",
    "400 InvalidBucketName <BucketName>b_b</BucketName>": "that is not a bucket's name (3 to 63 small letters, digits, "
    "dots and hyphens); correct it",
    "403 AccessDenied": "the credentials do not allow it; a run takes s3:ListBucket, s3:GetObject, s3:PutObject, "
    "s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucketMultipartUploads",
    "403 AllAccessDisabled": "all access to the bucket is disabled; ask its owner, or name another",
    "403 RequestTimeTooSkewed <RequestTime>20261125T081600Z</RequestTime>": "this machine's clock is wrong; set it "
    "(timedatectl set-ntp true) and try again",
    "403 InvalidAccessKeyId <AWSAccessKeyId>test</AWSAccessKeyId>": "the access key is not known there; check "
    "AWS_ACCESS_KEY_ID or the profile",
    "404 NoSuchBucket": "there is no such bucket; create it, or correct the name",
}


@pytest.mark.parametrize("answer", S3_SAYS)
def test_what_s3_refuses_is_one_sentence_whatever_was_asked(s3: FaultProxy, answer: str) -> None:
    store = open_store("s3://faults", IMPATIENT).inside(uuid.uuid4().hex)
    s3.plan = lambda method, path: f"refuse {answer}"
    for ask in ASKED:
        assert sentence(store, ask, StoreRefused) == S3_SAYS[answer], ask


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (
            "507 InsufficientStorage", StoreFull,
            "no space is left there; free some, or name another place with --set checkpoints.store",
        ),
        ("503 SlowDown", StoreError, "it answered SlowDown, again and again; look at the server, or try later"),
        (
            "403 KMS.DisabledException", StoreError,
            "it answered KMS.DisabledException; its documentation of that word says what to change",
        ),
    ],
)  # fmt: skip
def test_what_s3_fails_at_is_one_sentence_too(s3: FaultProxy, answer: str, kind: type[StoreError], why: str) -> None:
    store = open_store("s3://faults", IMPATIENT).inside(uuid.uuid4().hex)
    s3.plan = lambda method, path: f"refuse {answer}"
    # boto3 tries for half a minute what obstore gives up in two seconds.
    for ask in ["read"] if "SlowDown" in answer else ASKED:
        if kind is not StoreFull or "read" not in ask:
            assert sentence(store, ask, kind) == why, ask


def test_a_bucket_of_another_region_is_followed_there_where_the_answer_names_it(s3: FaultProxy) -> None:
    store = open_store("s3://faults", IMPATIENT).inside(uuid.uuid4().hex)
    left = ["refuse 301 PermanentRedirect <Region>us-east-1</Region>"]
    s3.plan = lambda method, path: left.pop() if left else ""
    assert store.create("x", b"1")
    assert s3.done == ["refuse 301 PermanentRedirect <Region>us-east-1</Region>"]


@pytest.mark.parametrize("ask", ["list", "write", "create", "delete"])
def test_a_name_no_bucket_can_have_is_refused_before_anything_is_sent(
    s3_server: Server, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    assert sentence(open_store("s3://No Bucket!"), ask, StoreRefused).startswith("that is not a bucket's name")


WRONG = {
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wr0ng"}, "s3://contract", "the secret key is wrong"),
    "unknown key": ({"AWS_ACCESS_KEY_ID": "nobody"}, "s3://contract", "the access key is not known there"),
    "no bucket": ({}, "s3://nobody-made-this-one", "there is no such bucket"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_seaweedfs_itself_refuses_is_the_same_sentence(
    s3_server: Server, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    changed, uri, why = WRONG[case]
    servers.make_bucket(s3_server, "contract")
    for name, value in {**s3_server.environment, **changed}.items():
        monkeypatch.setenv(name, value)
    for ask in ASKED if case != "no bucket" else ["list"]:  # it makes a bucket for whoever writes to one
        assert sentence(open_store(uri), ask, StoreRefused).startswith(why)


def test_without_credentials_the_sentence_says_how_to_get_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreRefused, match="there are no AWS credentials; run `aws configure`"):
        open_store("s3://bucket")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreRefused, match=r"\(nobody\) could not be found; correct AWS_PROFILE"):
        open_store("s3://bucket")


_SIGN_IN = "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key's file"
GOOGLE_SAYS = {
    "401 authError": f"there are no usable Google credentials; {_SIGN_IN}",
    "403 forbidden x@y.iam does not have storage.objects access": "the credentials do not allow it; a run takes the "
    "role Storage Object User on the bucket",
    "400 invalidArgument": "it answered 400; Google's documentation of that status says what to change",
}


@pytest.mark.parametrize("answer", GOOGLE_SAYS)
def test_what_google_refuses_is_one_sentence_whatever_was_asked(gcs: FaultProxy, answer: str) -> None:
    store = open_store("gs://faults", IMPATIENT).inside(uuid.uuid4().hex)
    gcs.plan = lambda method, path: f"refuse {answer}"
    for ask in ASKED:
        assert sentence(store, ask, StoreError if "400" in answer else StoreRefused) == GOOGLE_SAYS[answer], ask


def test_a_google_bucket_that_does_not_exist_is_refused_with_a_sentence(
    gcs_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.endpoint)
    for ask in ("list", "write", "create"):
        assert sentence(open_store("gs://nobody-made-this-one"), ask, StoreRefused).startswith(
            "there is no such bucket"
        )


@pytest.mark.parametrize("kept", ["nothing", "a file that is no key"])
def test_without_google_credentials_the_sentence_says_how_to_get_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: str
) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    if kept != "nothing":
        (tmp_path / "key.json").write_text(json.dumps({"type": "none"}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(StoreRefused, match="there are no usable Google credentials; run `gcloud auth application"):
        open_store("gs://bucket")


def test_a_google_key_that_was_withdrawn_is_refused_with_the_same_sentence(
    s3: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    secret = rsa.generate_private_key(65537, 2048).private_bytes(serialization.Encoding.PEM, *form).decode()
    key = {"type": "service_account", "client_email": "a@b.iam", "private_key": secret, "project_id": "p"}
    (tmp_path / "key.json").write_text(json.dumps({**key, "token_uri": f"{s3.endpoint}/storage/v1/token"}))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    s3.plan = lambda method, path: "refuse 400 invalid_grant"
    assert sentence(open_store("gs://bucket", IMPATIENT), "list", StoreRefused).startswith(
        "there are no usable Google credentials; run `gcloud"
    )
