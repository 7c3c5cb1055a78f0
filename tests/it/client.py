"""An S3 client that shares no code with the mount: boto3, driven by JSON lines on stdin.

The first line is the configuration; each later line is one request and gets one line of answer:
{"ok": ...} or {"error": CODE, "text": ...}.
"""

import base64
import concurrent.futures
import hashlib
import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError


def connect(config, service):
    return boto3.client(
        service,
        endpoint_url=config["endpoint"],
        region_name=config["region"],
        aws_access_key_id=config["access_key"],
        aws_secret_access_key=config["secret_key"],
        aws_session_token=config.get("session_token"),
        verify=config.get("ca_file") or True,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"max_attempts": 10, "mode": "standard"},
            connect_timeout=10,
            read_timeout=120,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=16,
        ),
    )


class Session:
    def __init__(self, config):
        self.config = config
        self.s3 = connect(config, "s3")
        self.bucket = config["bucket"]

    def create_bucket(self, _):
        try:
            self.s3.create_bucket(Bucket=self.bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
                raise
        return None

    def put(self, request):
        if "path" in request:
            with open(request["path"], "rb") as source:
                body = source.read()
        else:
            body = base64.b64decode(request["body"])
        extra = {}
        if request.get("content_type"):
            extra["ContentType"] = request["content_type"]
        answer = self.s3.put_object(
            Bucket=self.bucket,
            Key=request["key"],
            Body=body,
            Metadata=request.get("metadata") or {},
            **extra,
        )
        return {"etag": answer["ETag"]}

    def describe(self, key, answer):
        return {
            "key": key,
            "size": answer["ContentLength"],
            "etag": answer["ETag"],
            "content_type": answer.get("ContentType", ""),
            "metadata": answer.get("Metadata", {}),
        }

    def head(self, request):
        answer = self.s3.head_object(Bucket=self.bucket, Key=request["key"])
        return self.describe(request["key"], answer)

    def get(self, request):
        answer = self.s3.get_object(Bucket=self.bucket, Key=request["key"])
        described = self.describe(request["key"], answer)
        digest, kept, size = hashlib.sha256(), b"", 0
        for chunk in answer["Body"].iter_chunks(1 << 20):
            digest.update(chunk)
            size += len(chunk)
            if len(kept) < 65536:
                kept += chunk[: 65536 - len(kept)]
        described.update(sha256=digest.hexdigest(), size=size, body=base64.b64encode(kept).decode())
        return described

    def list(self, request):
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=request.get("prefix", "")
        )
        return [
            {"key": entry["Key"], "size": entry["Size"], "etag": entry["ETag"]}
            for page in pages
            for entry in page.get("Contents", [])
        ]

    def tree(self, request):
        """Every object below a prefix, read."""
        entries = self.list(request)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda entry: self.get({"key": entry["key"]}), entries))

    def delete(self, request):
        self.s3.delete_object(Bucket=self.bucket, Key=request["key"])
        return None

    def uploads(self, request):
        answer = self.s3.list_multipart_uploads(Bucket=self.bucket, Prefix=request.get("prefix", ""))
        return [upload["Key"] for upload in answer.get("Uploads", [])]

    def half_sent(self, request):
        answer = self.s3.list_multipart_uploads(Bucket=self.bucket, Prefix=request["prefix"])
        place = [{"Key": upload["Key"], "UploadId": upload["UploadId"]} for upload in answer.get("Uploads", [])]
        return [
            upload["Key"] for upload in place if self.s3.list_parts(Bucket=self.bucket, **upload).get("Parts")
        ]

    def session_keys(self, _):
        """Keys of the same user with a session token (a role's may not copy on Ceph 16)."""
        statement = {"Effect": "Allow", "Action": ["s3:*", "sts:GetSessionToken"], "Resource": "*"}
        connect(self.config, "iam").put_user_policy(
            UserName=self.config["user"],
            PolicyName="tests",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        )
        answer = connect(self.config, "sts").get_session_token(DurationSeconds=3600)["Credentials"]
        return {
            "access_key": answer["AccessKeyId"],
            "secret_key": answer["SecretAccessKey"],
            "session_token": answer["SessionToken"],
        }


def main():
    session = Session(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(session, request["op"])(request)}
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "Unknown")
            answer = {"error": code, "text": str(error)}
        except (BotoCoreError, OSError, ValueError) as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        print(json.dumps(answer), flush=True)


main()
